"""How often `--operator auto` names the operator that made an input.

    python scripts/bench/blind_table.py --faces HELD_BACK_DIR --low 16
    python scripts/bench/blind_table.py --low 16                  # faces that the prior itself drew

Prints a Markdown table: of each true operator, how many inputs were given which name.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import click
import numpy as np
import torch
from search_inputs import drawn_faces, real_faces

import pulse_sr
from pulse_sr.inversion.blind.detection import Learned, default_candidates, learn
from pulse_sr.operators.degrading import degrade


def truths(scale: int) -> list[str]:
    """The candidates of auto, and the conventions that it takes for one of them."""
    own = default_candidates(scale)
    return [own[0], "matlab", "pillow", "pillow:lanczos", *own[1:]]


def chosen(learned: Learned, faces: list[np.ndarray], spec: str, scale: int) -> Counter[str]:
    """What the inputs made by `spec` were taken for; noise is drawn from a seed for each face."""
    names: Counter[str] = Counter()
    for index, face in enumerate(faces):
        low = degrade(face, spec, scale, np.random.default_rng(index))
        names[learned.rank(torch.from_numpy(low / 255.0)).best] += 1
    return names


@click.command()
@click.option("--faces", type=click.Path(exists=True, path_type=Path), help="Held-back faces.")
@click.option("--prior", "name", default=None, help="Name or path; default: the bundled one.")
@click.option("--low", type=int, default=16, show_default=True, help="Side of the inputs.")
@click.option("--count", type=int, default=100, show_default=True, help="Faces.")
def main(faces: Path | None, name: str | None, low: int, count: int) -> None:
    """Print the table."""
    prior = pulse_sr.load_prior(name, device="cpu")
    scale = prior.resolution // low
    found = (
        drawn_faces(prior, count) if faces is None else real_faces(faces, count, prior.resolution)
    )
    pictures = [face.truth for face in found]
    started = time.perf_counter()
    learned = learn(prior, (low, low), scale, default_candidates(scale))
    print(f"{prior.name}, {len(pictures)} faces, {low} px; learnt in ", end="")
    print(f"{time.perf_counter() - started:.1f} s on {torch.get_num_threads()} threads\n")
    print("| truth | " + " | ".join(learned.specs) + " |")
    print("|---" * (1 + len(learned.specs)) + "|")
    for spec in truths(scale):
        counts = chosen(learned, pictures, spec, scale)
        print(f"| {spec} | " + " | ".join(str(counts[each]) for each in learned.specs) + " |")


if __name__ == "__main__":
    main()
