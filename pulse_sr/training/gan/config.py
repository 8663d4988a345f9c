"""The settings that decide the course of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from pulse_sr.options import options_of
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training.gan.options import GanOptions

NetworkConfig = StyleGAN2Config | FastGANConfig


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the course of a training run.

    What is not explained here is the option of the same name (`options.GanOptions`), with its
    default filled in.

    Attributes:
        network: shape of the generator; the discriminator mirrors its widths.
        betas: decays of Adam.
        gamma: weight of R1 and R2; 0: none.
        r2: penalise the gradient at generated images too.
        penalty_interval: steps between two penalties; above 1 they are steps of their own, with
            rates and decays corrected (Karras et al. 2020, appendix B).
        path_interval: steps between two path length steps.
        ema_rampup: the half-life is at most this share of the images shown.
        heads_warmup: until so many images were shown the heads learn, and G does not hear them.
        mixing: share of images with two latents (StyleGAN2).
        reconstruction: what the decoders of FastGAN's discriminator are judged by.
        policy: transforms of DiffAugment in their order.
        freeze_d: how many stages of D, from the image inwards, stay as `init` gave them.
        init: sha256 of the weights, or of the state, the run began with; empty: random ones.
    """

    network: NetworkConfig
    loss: str = "logistic"
    batch: int = 16
    lr: float = 0.002
    betas: tuple[float, float] = (0.0, 0.99)
    gamma: float = 1.0
    r2: bool = False
    penalty_interval: int = 16
    path_weight: float = 0.0
    path_interval: int = 4
    ema_kimg: float = 10.0
    ema_rampup: float | None = 0.05
    ema_bank: tuple[float, ...] = ()
    heads: str = "off"
    heads_weight: float = 0.3
    heads_warmup: int = 2000
    mixing: float = 0.5
    reconstruction: str = "squeezenet"
    augment: str = "diffaug"
    policy: tuple[str, ...] = ("color", "translation")
    mirror: bool = True
    freeze_d: int = 0
    init: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("loss", "augment", "heads"):
            options_of(GanOptions)[name].check(getattr(self, name))

    @property
    def architecture(self) -> str:
        """ "stylegan2" or "fastgan"."""
        return "stylegan2" if isinstance(self.network, StyleGAN2Config) else "fastgan"

    @property
    def trained_with(self) -> list[str]:
        """The networks whose features G learns from: they are no judges of it."""
        return [] if self.heads == "off" else [self.heads]

    def to_json(self) -> dict[str, Any]:
        """The fields that matter for the architecture, as plain JSON values."""
        fields = asdict(replace(self)) | {
            "architecture": self.architecture,
            "network": self.network.to_json(),
            "betas": list(self.betas),
            "policy": list(self.policy) if self.augment == "diffaug" else [],
            "ema_bank": list(self.ema_bank),
        }
        foreign = _FOREIGN[self.architecture]
        if self.heads == "off":
            foreign += ("heads_weight", "heads_warmup")
        for name in foreign:
            del fields[name]
        return fields


#: Fields that have no meaning for an architecture.
_FOREIGN: dict[str, tuple[str, ...]] = {
    "stylegan2": ("reconstruction",),
    "fastgan": ("mixing", "path_weight", "path_interval"),
}
#: What the fields that a state of an earlier version does not name were then.
EARLIER: dict[str, Any] = {"heads": "off", "ema_bank": []}


def recipe(architecture: str, loss: str | None, resolution: int, batch: int) -> dict[str, Any]:
    """The settings that belong to an architecture and a loss, before the user's own.

    StyleGAN2: gamma `0.0002 R^2 / batch` (Karras et al., NeurIPS 2020, appendix C). FastGAN: hinge
    loss, no penalty, Adam of the paper (Liu et al., ICLR 2021). Relativistic: R1 and R2 in every
    step (Huang et al., NeurIPS 2024).
    """
    gamma = 0.0002 * resolution**2 / batch
    found: dict[str, Any]
    if architecture == "fastgan":
        # An average of 0.999 per step at the paper's batch of 8 halves in 5,500 images.
        found = {"loss": "hinge", "lr": 0.0002, "betas": (0.5, 0.999), "gamma": 0.0}
        found |= {"ema_kimg": 5.5}
    else:
        found = {"loss": "logistic", "lr": 0.002, "betas": (0.0, 0.99), "gamma": gamma}
        found |= {"ema_kimg": 10.0}
    if loss == "relativistic":
        found |= {"r2": True, "penalty_interval": 1, "gamma": gamma}
    return found
