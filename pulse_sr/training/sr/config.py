"""The recipe of a supervised training: network, data, and what is minimised in which phase."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pulse_sr.errors import UsageError, shown
from pulse_sr.files.documents import check_description
from pulse_sr.operators.spec import AUTO, parse_operator
from pulse_sr.options import number, whole
from pulse_sr.training.optimizers import OPTIMIZERS
from pulse_sr.training.options import KIMG, MOST_KIMG, NUMBERS

#: How patches are turned over: all eight symmetries of a square, left and right, not at all.
FLIPS = ("all", "mirror", "off")
DECAYS = ("constant", "cosine")
#: What the whole numbers of a recipe may be: patches, pixels, a seed.
_WHOLE = {
    "batch": whole(1, 65536),
    "per_photo": whole(1, 65536),
    "patch": whole(1, 4096),
    "margin": whole(0, 4096),
    "seed": whole(0, 2**63 - 1),
}
_SCALE = whole(1, 256)
_MOST_WEIGHT = 1e6


@dataclass(frozen=True)
class Phase:
    """A stretch of a training with one set of losses.

    An optimizer begins anew with each phase; the weights go on.

    Attributes:
        kimg: thousands of patches that it lasts.
        lr: learning rate at its beginning, of generator and discriminator.
        losses: weight by name, out of those of `training.sr.losses`.
        decay: out of `DECAYS`; "cosine" takes the rate to `lr_end` at the end of the phase.
        lr_end: see `decay`.
        halve_at: thousands of patches, from its beginning, after which the rate is halved.
        adversarial: the loss against a discriminator, out of those of `pulse_sr.sr.losses`; empty:
            no discriminator learns.
        adversarial_weight: of it for the generator.
        gradient_penalty: weight of the penalty of the discriminator.
    """

    kimg: float
    lr: float
    losses: Mapping[str, float] = field(default_factory=dict)
    decay: str = "constant"
    lr_end: float = 0.0
    halve_at: tuple[float, ...] = ()
    adversarial: str = ""
    adversarial_weight: float = 0.0
    gradient_penalty: float = 0.0

    def __post_init__(self) -> None:
        _check_choice("decay", self.decay, DECAYS)
        KIMG.check(self.kimg, "kimg")
        for name, rate in (("lr", self.lr), ("lr_end", self.lr_end)):
            number(0 if name == "lr_end" else 1e-9, 1).check(rate, name)
        for at in self.halve_at:
            number(0, MOST_KIMG).check(at, "halve_at")
        for name in ("adversarial_weight", "gradient_penalty"):
            number(0, _MOST_WEIGHT).check(getattr(self, name), name)
        for name, weight in self.losses.items():
            number(1e-9, _MOST_WEIGHT).check(weight, f"losses.{name}")
        if not self.losses and not self.adversarial:
            raise UsageError("a phase without losses learns nothing", "losses = {l1 = 1.0}")
        if bool(self.adversarial) != bool(self.adversarial_weight):
            raise UsageError(
                "adversarial and adversarial_weight belong together, one of them is missing",
                "give both, or neither",
            )
        for name, needs, idle in (
            ("gradient_penalty", "adversarial", not self.adversarial),
            ("lr_end", 'decay = "cosine"', self.decay != "cosine"),
            ("halve_at", 'decay = "constant"', self.decay != "constant"),
        ):
            if getattr(self, name) and idle:
                raise UsageError(f"{name} does nothing without {needs}", "give both, or neither")

    @property
    def images(self) -> int:
        """Patches that it lasts."""
        return round(self.kimg * 1000)

    def rate(self, images: int) -> float:
        """The learning rate after so many patches of the phase."""
        if self.decay == "cosine":
            share = min(1.0, images / self.images)
            return self.lr_end + (self.lr - self.lr_end) * (1 + math.cos(math.pi * share)) / 2
        return self.lr * 0.5 ** sum(images >= at * 1000 for at in self.halve_at)

    def stretched(self, factor: float) -> Phase:
        """The same over so many times as many patches."""
        halve_at = tuple(at * factor for at in self.halve_at)
        return replace(self, kimg=self.kimg * factor, halve_at=halve_at)


@dataclass(frozen=True)
class SrConfig:
    """Everything that decides the course of a supervised training.

    Attributes:
        title: one line about the recipe.
        source: where it comes from; what of it is our own choice.
        network: "architecture", out of `sr.files.NETWORKS`, and the arguments of its class.
        phases: in turn.
        discriminator: the same for the discriminator; empty: none.
        operator: how low-res patches are made from high-res ones (docs/operators.md).
        patch: side of the high-res patches in pixels.
        margin: so many low-res pixels around a patch are made and cut away again, so that the
            operator meets no border where the photo has none.
        flips: out of `FLIPS`.
        per_photo: patches of a photo in a row: decoding it once serves them all.
        batch: patches per step, over all processes and parts.
        optimizer: out of `training.optimizers.OPTIMIZERS`.
        betas: decays of its moments.
        ema_kimg: half-life of the averaged network in thousands of patches.
        ema_rampup: the half-life is at most this share of the patches shown; None: no ramp.
        ema_bank: half-lives of further averages in the state.
        seed: of everything random.
    """

    title: str
    source: str
    network: Mapping[str, Any]
    phases: tuple[Phase, ...]
    discriminator: Mapping[str, Any] = field(default_factory=dict)
    operator: str = "matlab"
    patch: int = 96
    margin: int = 2
    flips: str = "all"
    per_photo: int = 1
    batch: int = 16
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    ema_kimg: float = 10.0
    ema_rampup: float | None = 0.05
    ema_bank: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choice("flips", self.flips, FLIPS)
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        self._check_numbers()
        if not self.phases:
            raise UsageError("a recipe has at least one phase", "[[phases]]")
        if self.patch % self.scale:
            raise UsageError(f"patch is {self.patch}, expected a multiple of scale {self.scale}")
        if any(phase.adversarial for phase in self.phases) and not self.discriminator:
            raise UsageError("an adversarial phase needs a discriminator", "[discriminator]")
        if self.operator.strip() == AUTO:
            raise UsageError("operator auto is for searches", 'operator = "matlab"')
        spec = parse_operator(self.operator)
        if spec.mask_file or spec.resizes != (self.scale > 1):
            raise UsageError(
                f"operator {spec.text!r} does not lead from patches to those of scale {self.scale}",
                'operator = "matlab"',
            )

    def _check_numbers(self) -> None:
        _SCALE.check(self.network.get("scale", 4), "network.scale")
        for name, kind in _WHOLE.items():
            kind.check(getattr(self, name), name)
        KIMG.check(self.ema_kimg, "ema_kimg")
        NUMBERS.check(self.ema_bank, "ema_bank")
        for beta in self.betas:
            number(0, 0.999_999).check(beta, "betas")
        if self.ema_rampup is not None:
            number(1e-6, 1).check(self.ema_rampup, "ema_rampup")
        try:
            check_description(self.network)
            check_description(self.discriminator)
        except ValueError as error:
            raise UsageError(str(error), "see [network] and [discriminator]") from error

    @property
    def scale(self) -> int:
        """How many times larger the network makes a picture."""
        return int(self.network.get("scale", 4))

    @property
    def side(self) -> int:
        """What is cut from a photo: the patch with its margin, in high-res pixels."""
        return self.patch + 2 * self.margin * self.scale

    @property
    def images(self) -> int:
        """Patches of all phases."""
        return sum(phase.images for phase in self.phases)

    def phase_at(self, images: int) -> tuple[int, int]:
        """The number of the phase after so many patches, and how many it began with."""
        begins = 0
        for place, phase in enumerate(self.phases[:-1]):
            if images < begins + phase.images:
                return place, begins
            begins += phase.images
        return len(self.phases) - 1, begins

    def stretched(self, kimg: float) -> SrConfig:
        """The same recipe in so many thousand patches, its phases in their proportions.

        Raises:
            UsageError: a phase would have no patch.
        """
        shortest = min(phase.images for phase in self.phases)
        least = math.ceil(self.images / shortest) / 1000
        if kimg < least:
            raise UsageError(f"--kimg {kimg:g} leaves a phase without a patch", f"--kimg {least:g}")
        factor = kimg * 1000 / self.images
        return replace(self, phases=tuple(phase.stretched(factor) for phase in self.phases))

    def to_json(self) -> dict[str, Any]:
        """What decides the course of a run, as plain JSON values."""
        fields = asdict(self)
        del fields["title"], fields["source"]
        fields["phases"] = {str(i): _plain(phase) for i, phase in enumerate(fields["phases"])}
        return _plain(fields)


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(each) if isinstance(each, tuple) else each for key, each in fields.items()}


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {shown(value)}, expected one of {', '.join(choices)}")
