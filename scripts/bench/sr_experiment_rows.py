"""What `sr_experiments.py` trains: rows of equal budgets, and the findings they are compared for.

All rows of a kind share network, discriminator, data, batch and rates (of a phase by pixels, and of
one against a discriminator); they differ in what is minimised. A row that has a discriminator
spends half of its patches on pixels alone first, if nothing else is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pulse_sr.training.sr.config import Phase, SrConfig

RATE, GAME_RATE, JUDGE_WEIGHT, PENALTY = 1e-3, 5e-4, 0.02, 10.0
#: Thousands of patches of a row of each kind of data.
BUDGETS = {"photos": 2.0, "faces": 1.6, "digits": 2.0}

PHOTOS = SrConfig(
    title="photos x4",
    source="scripts/bench/sr_experiment_rows.py",
    network={
        "architecture": "compact",
        "scale": 4,
        "width": 32,
        "convolutions": 2,
        "base": "bilinear",
    },
    phases=(Phase(kimg=1.0, lr=RATE, losses={"l1": 1.0}),),
    patch=48,
    per_photo=8,
    batch=8,
    betas=(0.9, 0.99),
)
FACES = replace(
    PHOTOS, title="faces", operator="bicubic", patch=128, margin=0, flips="mirror", per_photo=1
)
DIGITS = replace(FACES, title="digits", patch=28, flips="off")
_JUDGE = {"architecture": "vgg", "width": 8, "hidden": 32, "batch_norm": False}


@dataclass(frozen=True)
class Row:
    """One training: what is minimised, on which data (out of `BUDGETS`).

    Attributes:
        data: see there.
        config: the recipe.
        trained: whether it is; otherwise the row is bicubic enlargement.
    """

    data: str
    config: SrConfig
    trained: bool = True


@dataclass(frozen=True)
class Finding:
    """What was published: how a score of one row compares with that of another.

    Attributes:
        table: of the document.
        says: in words.
        row, than: the two rows.
        score: which one.
        expects: "higher", "lower", "equal", or "same": to a thousandth.
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


def _at(base: SrConfig, scale: int) -> SrConfig:
    return replace(base, network={**base.network, "scale": scale})


def _digits(scale: int, more: Mapping[str, float]) -> SrConfig:
    return _game(_at(DIGITS, scale), "least-squares", {"mse": 1.0, **more})


def _photos() -> dict[str, SrConfig]:
    l1 = {"l1": 1.0}
    return {
        "l1": _pixels(PHOTOS, l1),
        "logistic": _game(PHOTOS, "logistic"),
        **{name: _game(PHOTOS, name) for name in RELATIVISTIC},
        "mse": _pixels(PHOTOS, {"mse": 1.0}),
        "mse+dssim": _pixels(PHOTOS, MSE_DSSIM),
        **{
            f"l1+{name}": _pixels(PHOTOS, l1 | {name: weight}) for name, weight in BESIDE_L1.items()
        },
        "ragan-no-pretraining": _game(PHOTOS, "ragan", pretraining=False),
        "ragan-gp": _game(PHOTOS, "ragan", penalty=PENALTY),
        "l1-adabelief": _pixels(PHOTOS, l1, optimizer="adabelief"),
        "ragan-adabelief": _game(PHOTOS, "ragan", optimizer="adabelief"),
        **{f"ragan+{name}": _game(PHOTOS, "ragan", {"l1": 0.01, name: 1.0}) for name in PERCEPTUAL},
    }


def _faces(scale: int) -> dict[str, SrConfig]:
    base = _at(FACES, scale)
    return {
        "l1": _pixels(base, {"l1": 1.0}),
        "ragan": _game(base, "ragan"),
        "mse": _pixels(base, {"mse": 1.0}),
        "mse+dssim": _pixels(base, MSE_DSSIM),
        "mse-adabelief": _pixels(base, {"mse": 1.0}, optimizer="adabelief"),
    }


RELATIVISTIC = ("ragan", "rahinge", "rals", "rcgan", "rchinge", "rcls")
#: Beside L1, each with a gradient about as long as that of L1 where a training begins.
BESIDE_L1 = {
    "fft": 0.05,
    "spectral": 0.0014,
    "focal-frequency": 13.0,
    "fft-l2": 0.3,
    "relative-l2": 0.3,
    "squeezenet": 0.008,
}
#: Of them, those that see the spectrum, and the control that sees pixels by Parseval's theorem.
FREQUENCY, PARSEVAL = ("fft", "spectral", "focal-frequency"), "fft-l2"
MSE_DSSIM = {"mse": 1.0, "dssim": 0.013}
#: Their losses look through networks whose weights do not come with the package.
PERCEPTUAL = ("vgg22", "vgg54", "vgg54-before-relu", "lpips-vgg", "dists")
CLASSIFIERS = {"": {}, "-digits": {"digits": 0.02}, "-digits-published": {"digits-published": 0.02}}

ROWS: dict[str, Row] = {
    "bicubic": Row("photos", PHOTOS, trained=False),
    **{name: Row("photos", config) for name, config in _photos().items()},
}
for _scale in (4, 8):
    ROWS[f"faces-x{_scale}-bicubic"] = Row("faces", _at(FACES, _scale), trained=False)
    for _name, _config in _faces(_scale).items():
        ROWS[f"faces-x{_scale}-{_name}"] = Row("faces", _config)
for _scale in (2, 4):
    ROWS[f"mnist-x{_scale}-bicubic"] = Row("digits", _at(DIGITS, _scale), trained=False)
    for _name, _losses in CLASSIFIERS.items():
        ROWS[f"mnist-x{_scale}{_name}"] = Row("digits", _digits(_scale, _losses))


def _faces_findings(scale: int) -> tuple[Finding, ...]:
    table, at = f"faces x{scale}", f"faces-x{scale}-"
    return (
        Finding(table, "an adversarial loss costs PSNR", f"{at}ragan", f"{at}l1", "psnr", "lower"),
        Finding(
            table, "and looks nearer to the truth", f"{at}ragan", f"{at}l1", "distance", "lower"
        ),
        Finding(table, "DSSIM gives more SSIM", f"{at}mse+dssim", f"{at}mse", "ssim", "higher"),
        Finding(table, "and costs PSNR", f"{at}mse+dssim", f"{at}mse", "psnr", "lower"),
        Finding(
            table,
            "AdaBelief gives more PSNR",
            f"{at}mse-adabelief",
            f"{at}mse",
            "psnr",
            "higher",
        ),
    )


def _digit_findings(scale: int) -> tuple[Finding, ...]:
    table, row = f"MNIST x{scale}", f"mnist-x{scale}"
    gradient, published = f"{row}-digits", f"{row}-digits-published"
    reads = "the classifier's gradient makes digits readable"
    return (
        Finding(table, reads, gradient, row, "accuracy", "higher"),
        Finding(table, "and costs PSNR", gradient, row, "psnr", "lower"),
        Finding(table, "the published form trains nothing", published, row, "weights", "equal"),
    )


def _each(
    table: str, says: str, rows: Iterable[str], than: str, score: str = "distance"
) -> tuple[Finding, ...]:
    return tuple(Finding(table, says, row, than, score, "lower") for row in rows)


_SPECTRAL = [f"l1+{name}" for name in FREQUENCY]
FINDINGS = (
    Finding("adversarial", "an adversarial loss costs PSNR", "logistic", "l1", "psnr", "lower"),
    Finding("adversarial", "and looks nearer to the truth", "logistic", "l1", "distance", "lower"),
    Finding("adversarial", "its spectrum is nearer", "logistic", "l1", "log_spectrum", "lower"),
    *_each("relativistic", "it looks nearer than the absolute loss", RELATIVISTIC, "logistic"),
    Finding("RaGP", "the penalty makes it look nearer", "ragan-gp", "ragan", "distance", "lower"),
    Finding("RaGP", "and costs no PSNR", "ragan-gp", "ragan", "psnr", "higher"),
    Finding("features", "SqueezeNet looks nearer", "l1+squeezenet", "l1", "distance", "lower"),
    Finding("features", "and costs PSNR", "l1+squeezenet", "l1", "psnr", "lower"),
    *_each("frequency", "it brings the spectrum nearer", _SPECTRAL, "l1", "log_spectrum"),
    *_each(
        "frequency",
        "it does so more than the Parseval control",
        _SPECTRAL,
        f"l1+{PARSEVAL}",
        "log_spectrum",
    ),
    Finding(
        "Parseval",
        "the complex L2 form is a pixel loss",
        f"l1+{PARSEVAL}",
        "l1+relative-l2",
        "log_spectrum",
        "same",
    ),
    Finding(
        "pre-training",
        "pixels first give more PSNR",
        "ragan",
        "ragan-no-pretraining",
        "psnr",
        "higher",
    ),
    Finding(
        "pre-training", "and look nearer", "ragan", "ragan-no-pretraining", "distance", "lower"
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
    Finding("DSSIM", "DSSIM gives more SSIM", "mse+dssim", "mse", "ssim", "higher"),
    Finding("DSSIM", "and costs PSNR", "mse+dssim", "mse", "psnr", "lower"),
    *(finding for scale in (4, 8) for finding in _faces_findings(scale)),
    *(finding for scale in (2, 4) for finding in _digit_findings(scale)),
)
