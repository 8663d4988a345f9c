"""What the model card of a training run says, gathered from the run."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pulse_sr import __version__
from pulse_sr.jobs.score_book import BEST_NAME, ScoreBook
from pulse_sr.jobs.scoring import COPY_RATIO, COPY_SHARE
from pulse_sr.priors.base import Prior
from pulse_sr.report.training_card import CardFacts, Measured, Memorised
from pulse_sr.training.gan.plan import PriorTrainer

_PICTURES = (
    ("interpolation.png", "Ways between fixed samples, along great circles of the latent space"),
    (
        "neighbours.png",
        "Samples beside the training images that they are nearest to. This picture shows training "
        "images: leave it out where those must not be shown",
    ),
    ("curves.png", "The log and the scores; the raw curves are pale"),
)


def card_facts(
    trainer: PriorTrainer,
    prior: Prior,
    book: ScoreBook,
    reference_scores: tuple[str, dict[str, float]] | None,
    others: str,
    command: str,
) -> CardFacts:
    """Gather the facts.

    Args:
        trainer: of the run.
        prior: the averaged generator as it is now.
        book: the scores so far.
        reference_scores: name and scores of other real images.
        others: what the check for copies compares the samples with.
        command: the command line, empty if it is not known.
    """
    scores = _scores(book)
    values = scores[0].values if scores else {}
    copied = Memorised(values[COPY_SHARE], values[COPY_RATIO], others) if scores else None
    return CardFacts(
        name=prior.name,
        architecture=trainer.config.architecture,
        resolution=prior.resolution,
        latent_dim=prior.latent_dim,
        parameters=parameters_of(prior),
        gflop=flops_of(prior) / 1e9,
        card=prior.card,
        training_images=len(trainer.images),
        images_shown=trainer.images_shown,
        seconds=trainer.seconds,
        device=device_name(trainer.device),
        versions={
            "pulse-sr": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "Python": platform.python_version(),
        },
        command=command,
        scores=scores,
        floor=None if reference_scores is None else Measured(*reference_scores),
        memorised=copied,
        pictures=_pictures(trainer.run_dir),
    )


def parameters_of(prior: Prior) -> int:
    """How many numbers the networks of a prior have."""
    networks = [value for value in vars(prior).values() if isinstance(value, nn.Module)]
    return sum(p.numel() for network in networks for p in network.parameters())


def flops_of(prior: Prior) -> int:
    """Additions and multiplications of the convolutions and matrix products of one image."""
    with FlopCounterMode(display=False) as counter:
        prior.sample([0])
    return int(counter.get_total_flops())


def device_name(device: torch.device) -> str:
    """The model of a GPU, the threads of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU ({platform.machine()}), {threads} thread{'' if threads == 1 else 's'}"


def _scores(book: ScoreBook) -> list[Measured]:
    if not book.records:
        return []
    last, best = book.records[-1], book.best
    words = f"{last['samples']:,} samples at {last['images'] / 1000:g} kimg"
    if best is last:
        words += f" (the best, `{BEST_NAME}`)"
    found = [Measured(words, last["scores"])]
    if best is not None and best is not last:
        words = f"the best, at {best['images'] / 1000:g} kimg (`{BEST_NAME}`)"
        found.append(Measured(words, best["scores"]))
    return found


def _pictures(run_dir: Path) -> list[tuple[str, str]]:
    grids = sorted(run_dir.glob("fakes-*.png"))
    found = [(grids[-1].name, "Uncurated samples, seeds 0 to 63")] if grids else []
    return found + [(name, words) for name, words in _PICTURES if (run_dir / name).exists()]
