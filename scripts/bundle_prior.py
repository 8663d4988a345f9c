"""Make the bundled prior of a training run: half-precision weights, card, checksum, sample grid.

    python scripts/bundle_prior.py runs/faces --name faces-128 --card scripts/bundled/faces-128.json

The grid shows the seeds 0 to 63 of the file as it is shipped, uncurated.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import torch

from pulse_sr.atomic import write_atomic
from pulse_sr.images import write_png
from pulse_sr.priors import registry
from pulse_sr.priors.files import read_prior, save_prior
from pulse_sr.training.snapshot import GRID_SIDE, tile


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True, help="Name of the bundled prior.")
@click.option("--card", type=click.Path(exists=True, path_type=Path), required=True)
def main(run_dir: Path, name: str, card: Path) -> None:
    """Write pulse_sr/priors/bundled/NAME.safetensors, NAME.png and registry.json."""
    prior = read_prior(run_dir)
    facts = json.loads(card.read_text()) | {"training": prior.card["training"]}
    file = registry.FOLDER / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    if "trained_with" in prior.card:  # the networks that may not judge it
        facts["trained_with"] = prior.card["trained_with"]
    prior.name, prior.card = name, facts
    save_prior(file, prior, torch.float16)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = {name: {"file": file.name, "sha256": digest}}
    write_atomic(registry.FOLDER / registry.REGISTRY, (json.dumps(entry, indent=2) + "\n").encode())
    shipped = read_prior(file)
    grid = torch.cat([shipped.sample(range(s, s + 16)) for s in range(0, GRID_SIDE**2, 16)])
    write_png(registry.FOLDER / f"{name}.png", tile(grid, GRID_SIDE))
    print(f"{file} {file.stat().st_size / 1e6:.2f} MB sha256 {digest}")


if __name__ == "__main__":
    main()
