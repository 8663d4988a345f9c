"""What `sr_experiments.py` trains: rows of equal budgets, and the findings they are compared for.

All rows of a kind share network, discriminator, data, batch and rates (of a phase by pixels, and of
one against a discriminator); they differ in what is minimised. A row that has a discriminator
spends half of its patches on pixels alone first, if nothing else is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pulse_sr.training.sr.config import Phase, SrConfig

RATE, GAME_RATE, JUDGE_WEIGHT, PENALTY = 2e-3, 5e-4, 0.02, 10.0

PHOTOS = SrConfig(
    title="photos x4",
    source="scripts/bench/sr_experiment_rows.py",
    network={
        "architecture": "compact",
        "scale": 4,
        "width": 24,
        "convolutions": 4,
        "base": "bilinear",
    },
    phases=(Phase(kimg=1.0, lr=RATE, losses={"l1": 1.0}),),
    patch=48,
    per_photo=8,
    batch=8,
)
DIGITS = replace(
    PHOTOS,
    title="digits",
    operator="bicubic",
    patch=28,
    margin=0,
    flips="off",
    per_photo=1,
    batch=32,
)
_JUDGE = {"architecture": "vgg", "width": 8, "hidden": 32, "batch_norm": False}


@dataclass(frozen=True)
class Row:
    """One training: what is minimised, on which data ("photos" or "digits")."""

    data: str
    config: SrConfig


@dataclass(frozen=True)
class Finding:
    """What was published: a score of one row beats that of another (ties count as "equal").

    Attributes:
        table: of the document.
        says: in words.
        row, than: the two rows.
        score: which one.
        expects: "higher", "lower" or "equal".
    """

    table: str
    says: str
    row: str
    than: str
    score: str
    expects: str


def _pixels(base: SrConfig, losses: Mapping[str, float], **more: str) -> SrConfig:
    return replace(base, phases=(_phase(1.0, losses),), **more)


def _phase(kimg: float, losses: Mapping[str, float], game: str = "", penalty: float = 0.0) -> Phase:
    weight = JUDGE_WEIGHT if game else 0.0
    rate = GAME_RATE if game else RATE
    return Phase(kimg, rate, losses, "cosine", rate / 50, (), game, weight, penalty)


def _game(
    base: SrConfig,
    game: str,
    losses: Mapping[str, float] | None = None,
    *,
    penalty: float = 0.0,
    pretraining: bool = True,
    optimizer: str = "adam",
) -> SrConfig:
    losses = losses or {"l1": 1.0}
    phases = (_phase(0.5, losses), _phase(0.5, losses, game, penalty))
    if not pretraining:
        phases = (_phase(1.0, losses, game, penalty),)
    return replace(base, phases=phases, discriminator=_JUDGE, optimizer=optimizer)


def _digits(scale: int, more: Mapping[str, float]) -> SrConfig:
    base = replace(DIGITS, network={**DIGITS.network, "scale": scale})
    return _game(base, "least-squares", {"mse": 1.0, **more})


RELATIVISTIC = ("ragan", "rahinge", "rals", "rcgan", "rchinge", "rcls")
FREQUENCY = {"fft": 0.01, "spectral": 0.1, "focal-frequency": 1.0, "fft-l2": 1.0}
#: Their losses look through networks whose weights do not come with the package.
PERCEPTUAL = ("vgg22", "vgg54", "vgg54-before-relu", "lpips-vgg", "dists")

ROWS: dict[str, Row] = {
    "l1": Row("photos", _pixels(PHOTOS, {"l1": 1.0})),
    "logistic": Row("photos", _game(PHOTOS, "logistic")),
    "ragan": Row("photos", _game(PHOTOS, "ragan")),
    "mse": Row("photos", _pixels(PHOTOS, {"mse": 1.0})),
    "mse+dssim": Row("photos", _pixels(PHOTOS, {"mse": 1.0, "dssim": 0.1})),
    **{
        f"l1+{name}": Row("photos", _pixels(PHOTOS, {"l1": 1.0, name: weight}))
        for name, weight in FREQUENCY.items()
    },
    "ragan-no-pretraining": Row("photos", _game(PHOTOS, "ragan", pretraining=False)),
    "ragan-gp": Row("photos", _game(PHOTOS, "ragan", penalty=PENALTY)),
    "l1-adabelief": Row("photos", _pixels(PHOTOS, {"l1": 1.0}, optimizer="adabelief")),
    "ragan-adabelief": Row("photos", _game(PHOTOS, "ragan", optimizer="adabelief")),
    **{name: Row("photos", _game(PHOTOS, name)) for name in RELATIVISTIC[1:]},
    **{
        f"mnist-x{scale}{suffix}": Row("digits", _digits(scale, losses))
        for scale in (2, 4)
        for suffix, losses in {
            "": {},
            "-digits": {"digits": 0.02},
            "-digits-published": {"digits-published": 0.02},
        }.items()
    },
    **{
        f"ragan+{name}": Row("photos", _game(PHOTOS, "ragan", {"l1": 0.01, name: 1.0}))
        for name in PERCEPTUAL
    },
}

FINDINGS = (
    Finding("adversarial", "an adversarial loss costs PSNR", "logistic", "l1", "psnr", "lower"),
    Finding("adversarial", "and looks nearer to the truth", "logistic", "l1", "distance", "lower"),
    Finding("adversarial", "its spectrum is nearer", "logistic", "l1", "log_spectrum", "lower"),
    *(
        Finding(
            "relativistic",
            f"{name} looks nearer than the absolute loss",
            name,
            "logistic",
            "distance",
            "lower",
        )
        for name in RELATIVISTIC
    ),
    Finding("ragp", "the penalty makes it look nearer", "ragan-gp", "ragan", "distance", "lower"),
    Finding("ragp", "and costs no PSNR", "ragan-gp", "ragan", "psnr", "higher"),
    *(
        Finding(
            "frequency",
            f"{name} brings the spectrum nearer",
            f"l1+{name}",
            "l1",
            "log_spectrum",
            "lower",
        )
        for name in FREQUENCY
    ),
    *(
        Finding(
            "frequency",
            f"{name} does so more than the Parseval control",
            f"l1+{name}",
            "l1+fft-l2",
            "log_spectrum",
            "lower",
        )
        for name in FREQUENCY
        if name != "fft-l2"
    ),
    Finding(
        "pretraining",
        "pre-training by pixels gives more PSNR",
        "ragan",
        "ragan-no-pretraining",
        "psnr",
        "higher",
    ),
    Finding(
        "pretraining",
        "and looks nearer",
        "ragan",
        "ragan-no-pretraining",
        "distance",
        "lower",
    ),
    Finding("optimizer", "AdaBelief gives more PSNR", "l1-adabelief", "l1", "psnr", "higher"),
    Finding(
        "optimizer",
        "AdaBelief looks nearer adversarially",
        "ragan-adabelief",
        "ragan",
        "distance",
        "lower",
    ),
    Finding("dssim", "DSSIM gives more SSIM", "mse+dssim", "mse", "ssim", "higher"),
    Finding("dssim", "and costs PSNR", "mse+dssim", "mse", "psnr", "lower"),
    *(
        finding
        for scale in (2, 4)
        for finding in (
            Finding(
                f"mnist-x{scale}",
                "the classifier's gradient makes digits readable",
                f"mnist-x{scale}-digits",
                f"mnist-x{scale}",
                "accuracy",
                "higher",
            ),
            Finding(
                f"mnist-x{scale}",
                "the published form trains nothing",
                f"mnist-x{scale}-digits-published",
                f"mnist-x{scale}",
                "weights",
                "equal",
            ),
        )
    ),
)
