"""All metrics of an evaluation by name: what each is, its unit, and the words of its convention.

A metric is `prepared` once (networks are read then, and a missing weight file raises) and then asks
one input after the other, or two sets of images. `docs/metrics.md` holds the definitions.

Shapes: S samples, N inputs, H W size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pulse_sr.metrics.brisque import brisque
from pulse_sr.metrics.calibration import coverage
from pulse_sr.metrics.case import Case
from pulse_sr.metrics.convention import RGB, Convention
from pulse_sr.metrics.diversity import PairwiseDistance, diversity_score
from pulse_sr.metrics.frechet import frechet_distance
from pulse_sr.metrics.gathered import Gathered
from pulse_sr.metrics.interval import DEFAULT_LEVEL
from pulse_sr.metrics.kernel import kernel_distance
from pulse_sr.metrics.manifold import precision_recall
from pulse_sr.metrics.niqe import niqe_of_set
from pulse_sr.metrics.options import METRICS
from pulse_sr.metrics.perceptual import PerceptualMetric
from pulse_sr.metrics.power_spectrum import spectral_discrepancy
from pulse_sr.metrics.psnr import HIGHEST_DB, psnr
from pulse_sr.metrics.sliced_wasserstein import PATCHES, sliced_wasserstein
from pulse_sr.metrics.ssim import ssim

HIGHER, LOWER = "higher", "lower"

#: A number of each sample of an input, or one of all of them together.
OfCase = Callable[[Case], list[float]]
#: A number of the images of two sets: results, then references.
OfSets = Callable[[Gathered, Gathered], float]


@dataclass(frozen=True)
class Settings:
    """What metrics are prepared with.

    Attributes:
        convention: of PSNR, SSIM and NIQE.
        weights: folder of weight files; None: torch hub's.
        device: of the networks.
    """

    convention: Convention = RGB
    weights: Path | None = None
    device: torch.device | str = "cpu"


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        title: for people.
        unit: of the number; empty: none.
        better: HIGHER, LOWER, or empty where it says nothing about quality by itself.
        words: the convention that the number was taken by.
        of_case: makes what measures one input; None: it is a metric of sets.
        of_sets: measures two sets; None: it is a metric of inputs.
        gathers: what is kept of each input for `of_sets`, see `gathered.gatherers`.
    """

    title: str
    unit: str
    better: str
    words: Callable[[Convention], str]
    of_case: Callable[[Settings], OfCase] | None = None
    of_sets: OfSets | None = None
    gathers: str = ""


def _bounded(decibels: Tensor) -> list[float]:
    values: list[float] = decibels.clamp_max(HIGHEST_DB).tolist()
    return values


def _psnr(case: Case) -> list[float]:
    return _bounded(psnr(*case.compared))


def _psnr_of_mean(case: Case) -> list[float]:
    mean = (255 * case.samples.mean(dim=0, keepdim=True)).round() / 255
    truth = case.compared[1]
    return _bounded(psnr(case.convention.of(mean), truth))


def _lr_psnr(case: Case) -> list[float]:
    if case.operator is None or case.low is None:
        raise ValueError("the low-res input and its operator are not known (--lr, --operator)")
    return _bounded(case.operator.lr_psnr(case.whole.double() / 255, case.low.double() / 255))


def _niqe(case: Case) -> list[float]:
    return [niqe_of_set(each) for each in case.niqe_features]


def _pixel_distance(case: Case) -> list[float]:
    pairs = PairwiseDistance()
    pairs.add(case.samples)
    return [255 * pairs.value()]


def _coverage(case: Case) -> list[float]:
    return [100 * float(coverage(case.samples, case.truth, [DEFAULT_LEVEL]))]


def _of_several(measure: OfCase) -> OfCase:
    def of(case: Case) -> list[float]:
        if len(case) < 2:
            raise ValueError("it needs two samples of an input, there is 1")
        return measure(case)

    return of


def _perceptual(name: str, settings: Settings) -> OfCase:
    measure = PerceptualMetric(name, settings.weights, settings.device)
    return lambda case: measure(case.samples, case.truth)


def _frechet(ours: Gathered, theirs: Gathered) -> float:
    a, b = ours.rows, theirs.rows
    needed = a.shape[1] + 1
    if min(len(a), len(b)) < needed:
        raise ValueError(
            f"it needs {needed} images in each set (its covariance has {a.shape[1]} dimensions), "
            f"there are {min(len(a), len(b))}"
        )
    return frechet_distance(a, b)


def _kernel(ours: Gathered, theirs: Gathered) -> float:
    return 1000 * kernel_distance(ours.rows, theirs.rows)


def _precision_recall(which: int, ours: Gathered, theirs: Gathered) -> float:
    return precision_recall(ours.rows, theirs.rows)[which]


def _sliced(ours: Gathered, theirs: Gathered) -> float:
    levels = sliced_wasserstein(ours.of_one_size().levels, theirs.levels)
    return math.fsum(levels) / len(levels)


_PIXELS = "8 bits, peak 255, mean over images"
_SAME = f"identical: {HIGHEST_DB:.0f} dB"
_SQUEEZENET = "SqueezeNet 1.0 (bundled), RGB, images under 224 px enlarged to it"
_INCEPTION = "Inception-v3 2015-12-05 (TorchScript of StyleGAN2-ADA), which resizes to 299 px"
_FIRST = "first sample of each input against the references"
_NIQE = "Y, parameters of BasicSR, blocks of 96 px"


def _plain(text: str) -> Callable[[Convention], str]:
    return lambda convention: text


def _with(text: str) -> Callable[[Convention], str]:
    return lambda convention: f"{convention.words}, {text}"


def _of_case(
    title: str,
    unit: str,
    better: str,
    words: Callable[[Convention], str],
    measure: OfCase,
) -> Metric:
    return Metric(title, unit, better, words, lambda settings: measure)


def _by_weights(title: str, name: str, words: str) -> Metric:
    return Metric(title, "", LOWER, _plain(words), partial(_perceptual, name))


def _of_sets(title: str, better: str, words: str, measure: OfSets, gathers: str) -> Metric:
    return Metric(title, "", better, _plain(words), of_sets=measure, gathers=gathers)


REGISTRY: dict[str, Metric] = {
    "psnr": _of_case("PSNR", "dB", HIGHER, _with(f"{_PIXELS}; {_SAME}"), _psnr),
    "ssim": _of_case(
        "SSIM",
        "",
        HIGHER,
        _with(f"Gaussian 11 px, sigma 1.5, {_PIXELS}"),
        lambda case: ssim(*case.compared).tolist(),
    ),
    "lr-psnr": _of_case(
        "LR consistency",
        "dB",
        HIGHER,
        _plain(
            "result through the operator in float64 against the low-res input; RGB, no crop; "
            f"{_SAME}"
        ),
        _lr_psnr,
    ),
    "lpips-alex": _by_weights(
        "LPIPS (AlexNet)", "lpips-alex", "LPIPS 0.1, AlexNet, images in [-1, 1], no resizing"
    ),
    "lpips-vgg": _by_weights(
        "LPIPS (VGG-16)", "lpips-vgg", "LPIPS 0.1, VGG-16, images in [-1, 1], no resizing"
    ),
    "dists": _by_weights("DISTS (VGG-16)", "dists", "VGG-16; over 256 px reduced to it"),
    "squeezenet": _of_case(
        "SqueezeNet distance",
        "",
        LOWER,
        _plain(f"{_SQUEEZENET}; no LPIPS"),
        lambda case: case.seen.distances.tolist(),
    ),
    "niqe": _of_case(
        "NIQE",
        "",
        LOWER,
        lambda convention: f"{_NIQE}, {convention.border}",
        _niqe,
    ),
    "brisque": _of_case(
        "BRISQUE",
        "",
        LOWER,
        _plain("features and model of the package brisque, no crop"),
        lambda case: [brisque(each) for each in case.samples],
    ),
    "psnr-mean": _of_case(
        "PSNR of the samples' mean",
        "dB",
        HIGHER,
        _with(f"{_PIXELS}; mean rounded; {_SAME}"),
        _of_several(_psnr_of_mean),
    ),
    "diversity": _of_case(
        "NTIRE diversity",
        "%",
        HIGHER,
        _plain(f"NTIRE 2021 with the distance of {_SQUEEZENET}, not LPIPS"),
        _of_several(lambda case: [diversity_score(case.seen.maps)]),
    ),
    "pixel-distance": _of_case(
        "pairwise distance",
        "levels",
        "",
        _plain("root mean square over pairs of samples and pixels, 0 to 255"),
        _of_several(_pixel_distance),
    ),
    "coverage": _of_case(
        "coverage of the 90 % interval",
        "%",
        "",
        _plain("share of the truth's values in the interval of type 6 quantiles, +- half a level"),
        _of_several(_coverage),
    ),
    "niqe-set": Metric(
        "NIQE of the set",
        "",
        LOWER,
        lambda convention: f"{_NIQE} of the first samples pooled, {convention.border}",
        of_sets=lambda ours, theirs: niqe_of_set(ours.blocks),
        gathers="blocks",
    ),
    "frechet": _of_sets(
        "Fréchet (SqueezeNet)", LOWER, f"{_SQUEEZENET}; {_FIRST}; no FID", _frechet, "features"
    ),
    "kernel": _of_sets(
        "kernel distance x 1000 (SqueezeNet)",
        LOWER,
        f"{_SQUEEZENET}; unbiased, {_FIRST}; no KID",
        _kernel,
        "features",
    ),
    "precision": _of_sets(
        "precision (SqueezeNet)",
        HIGHER,
        f"k = 3; {_SQUEEZENET}; {_FIRST}",
        partial(_precision_recall, 0),
        "features",
    ),
    "recall": _of_sets(
        "recall (SqueezeNet)",
        HIGHER,
        f"k = 3; {_SQUEEZENET}; {_FIRST}",
        partial(_precision_recall, 1),
        "features",
    ),
    "sliced-wasserstein": _of_sets(
        "sliced Wasserstein x 1000",
        LOWER,
        "RGB, 7x7 patches of Laplacian levels, mean over levels, "
        f"{PATCHES} patches, 512 directions; {_FIRST}",
        _sliced,
        "patches",
    ),
    "spectrum": _of_sets(
        "spectral discrepancy",
        LOWER,
        "luma, mean square difference of mean radial log spectra, each scaled to [0, 1] "
        f"(UpConv's rings); {_FIRST}",
        lambda ours, theirs: spectral_discrepancy(ours.of_one_size().rows, theirs.rows),
        "profile",
    ),
    "fid": _of_sets("FID", LOWER, f"{_INCEPTION}; {_FIRST}", _frechet, "inception"),
    "kid": _of_sets(
        "KID x 1000", LOWER, f"{_INCEPTION}; unbiased, whole sets, {_FIRST}", _kernel, "inception"
    ),
}

#: What metrics are prepared with if nothing is said.
DEFAULTS = Settings()

assert tuple(REGISTRY) == METRICS, "metrics.options names them for the command line"
