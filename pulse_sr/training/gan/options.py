"""The options of `train-prior` that decide the course of a run; imports neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_sr.errors import UsageError
from pulse_sr.options import named, number, one_of, option, seed_option, text, whole
from pulse_sr.training.options import KIMG, MOST_KIMG, NUMBERS, DataOptions, MachineOptions

ARCHITECTURES = ("stylegan2", "fastgan")
#: Those of `sr.losses.adversarial` that average nothing over the batch, which is worked on in
#: parts.
LOSSES = ("logistic", "hinge", "relativistic")
#: The options of one architecture alone.
WIDTHS = {
    "stylegan2": ("channel_base", "channel_max", "w_dim", "mapping_layers"),
    "fastgan": ("ngf",),
}
#: How much a term of a loss counts.
WEIGHT = number(0, 10**6)
AUGMENTS = ("diffaug", "ada", "off")
#: No heads, or the network that they stand on (`metrics.feature_networks`).
HEADS = ("off", "squeezenet", "efficientnet-lite0")


@dataclass(frozen=True)
class GanOptions(DataOptions, MachineOptions):
    """What the user says of a training; what is None follows the architecture (`config.recipe`).

    `heads_warmup` and the half-lives are in thousands of images, the warm-up from the beginning of
    this run. `init` is a prior or the folder of a run whose weights to begin with, `continued` the
    folder of a run whose whole state to begin with.
    """

    architecture: str = option(
        "stylegan2",
        "stylegan2 is the better prior to search, fastgan the faster to train.",
        one_of(*ARCHITECTURES),
        name="arch",
    )
    resolution: int | None = option(None, "Power of two.", whole(0, 8192), unset="what DATA has")
    batch: int | None = option(
        None, "Images a step, over all processes.", whole(2, 65536), unset="16; fastgan 8"
    )
    init: str | None = option(
        None, "Begin with the weights of a prior or run, of any resolution.", named("PRIOR")
    )
    continued: str | None = option(
        None,
        "Begin with the whole state of a run in another folder; options may differ from its own.",
        named("RUN", "the folder of a run"),
        name="continue",
    )
    freeze_d: int = option(
        0, "With --init: leave the first N stages of the discriminator as they are.", whole(0, 64)
    )
    augment: str = option(
        "diffaug",
        "ada sets its strength by how much D overfits.",
        one_of(*AUGMENTS),
    )
    cutout: bool = option(False, "Add cutout to diffaug (below 2000 images).", off="no-cutout")
    mirror: bool = option(True, "Flip half of the images.", off="no-mirror")
    loss: str | None = option(
        None, "Of both networks.", one_of(*LOSSES), unset="logistic; fastgan hinge"
    )
    lr: float | None = option(
        None, "Learning rate.", number(1e-9, 1), unset="0.002; fastgan 0.0002"
    )
    gamma: float | None = option(None, "Weight of R1.", WEIGHT, unset="0.0002 * N^2 / batch")
    path_weight: float = option(
        0.0, "Weight of path length regularisation (2 in the paper).", WEIGHT, name="path-length"
    )
    channel_base: int | None = option(
        None, "StyleGAN2: width * side.", whole(1, 2**20), unset="2048"
    )
    channel_max: int | None = option(None, "StyleGAN2: largest width.", whole(1, 8192), unset="128")
    w_dim: int | None = option(None, "StyleGAN2: latent width.", whole(1, 8192), unset="128")
    mapping_layers: int | None = option(None, "StyleGAN2.", whole(1, 64), unset="2")
    ngf: int | None = option(None, "FastGAN: base width.", whole(1, 1024), unset="64")
    ema_kimg: float | None = option(None, "EMA half-life.", KIMG, unset="10; fastgan 5.5")
    ema_bank: tuple[float, ...] = option(
        (),
        "Half-lives, in kimg, of further averages in the state, to choose from at the end.",
        NUMBERS,
    )
    heads: str = option(
        "off",
        'Heads on features of an ImageNet network beside D; the last: "pulse-sr[heads]".',
        one_of(*HEADS),
    )
    heads_weight: float | None = option(
        None, "Weight of the heads for G, beside D.", WEIGHT, unset="0.3"
    )
    heads_warmup: float | None = option(
        None,
        "So many kimg the heads learn, and G does not hear them.",
        number(0, MOST_KIMG),
        unset="2",
    )
    licence: str = option("unstated", "Licence of the weights, kept with them.", text("TEXT"))
    seed: int = seed_option()

    @property
    def widths(self) -> dict[str, int]:
        """What is said of the networks.

        Raises:
            UsageError: for an option of the other architecture.
        """
        every = {name: getattr(self, name) for names in WIDTHS.values() for name in names}
        said = {name: width for name, width in every.items() if width is not None}
        for name in said.keys() - set(WIDTHS[self.architecture]):
            option = f"--{name.replace('_', '-')}"
            words = f"{option} does not belong to --arch {self.architecture}"
            raise UsageError(words, "leave it out")
        return said
