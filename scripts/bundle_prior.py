"""Make the bundled prior of a training run: half-precision weights, card, checksum, sample grid.

    python scripts/bundle_prior.py runs/faces --name faces-128 --card scripts/bundled/faces-128.json

The grid shows the seeds 0 to 63 of the file as it is shipped, uncurated. `--ema 20` takes the
average of that half-life out of the run's state (`train-prior --ema-bank`); with `-o FILE` it is
only written there, to be looked at and scored. `--state FILE` writes the state too, without the
averages of the bank: a run that goes on begins them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch

from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.documents import json_bytes
from pulse_sr.files.tensors import read_tensors, write_tensors
from pulse_sr.images.write import write_png
from pulse_sr.models import registry
from pulse_sr.priors.bank import write_bank
from pulse_sr.priors.base import Prior
from pulse_sr.priors.files import read_prior, save_prior
from pulse_sr.training.checkpoint import HEADER_KEY, STATE_NAME, read_checkpoint_header
from pulse_sr.training.ema import average_name
from pulse_sr.training.gan.build import build_objective, describe_network
from pulse_sr.training.gan.config import TrainConfig
from pulse_sr.training.gan.transfer import read_continued, tensors_of
from pulse_sr.training.snapshot import GRID_SIDE, tile


def prior_of(run_dir: Path, half_life: float | None) -> Prior:
    """The prior of a run, or the one whose average has another half-life, in thousand images."""
    prior = read_prior(run_dir)
    if half_life is None:
        return prior
    state = read_continued(str(run_dir))
    architecture = state.header["architecture"]
    config = TrainConfig(describe_network(architecture, prior.resolution, state))
    objective = build_objective(config)
    tensors = tensors_of(state.path, f"{average_name('G', half_life)}/")
    if not tensors:
        raise click.UsageError(f"{state.path} has no average of half-life {half_life:g}")
    objective.generator.load_state_dict(tensors)
    ema = {"ema_kimg": half_life, "images": state.images}
    card = prior.card | {"training": prior.card["training"] | ema}
    return objective.make_prior(objective.generator, prior.name, card)


def write_state(run_dir: Path, file: Path) -> None:
    """Write the state of a run with its first average alone."""
    state = run_dir / STATE_NAME
    header = read_checkpoint_header(state)
    bank = tuple(f"{average_name('G', each)}/" for each in header["config"]["ema_bank"])
    header["config"]["ema_bank"] = []
    kept = {k: v for k, v in read_tensors(state).items() if not k.startswith(bank)}
    write_tensors(file, kept, HEADER_KEY, header)


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True, help="Name of the bundled prior.")
@click.option("--card", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--ema", type=float, help="Half-life of the average; default: the run's first.")
@click.option("--state", type=click.Path(path_type=Path), help="Write the state of the run here.")
@click.option("-o", "out", type=click.Path(path_type=Path), help="Only write this prior file.")
def main(
    run_dir: Path,
    name: str,
    card: Path,
    ema: float | None,
    state: Path | None,
    out: Path | None,
) -> None:
    """Write NAME.safetensors, its seed bank, NAME.png and registry.json into the package."""
    prior = prior_of(run_dir, ema)
    if out is not None:
        save_prior(out, prior, torch.float16)
        return
    facts = json.loads(card.read_text()) | {"training": prior.card["training"]}
    file = registry.FOLDERS["prior"] / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    if "trained_with" in prior.card:  # the networks that may not judge it
        facts["trained_with"] = prior.card["trained_with"]
    prior.name, prior.card = name, facts
    save_prior(file, prior, torch.float16)
    digest = file_sha256(file)
    entry = {name: {"file": file.name, "sha256": digest}}
    write_atomic(registry.FOLDERS["prior"] / registry.REGISTRY, json_bytes(entry))
    if state is not None:
        write_state(run_dir, state)
    shipped = read_prior(file)
    write_bank(shipped, file)
    grid = torch.cat([shipped.sample(range(s, s + 16)) for s in range(0, GRID_SIDE**2, 16)])
    write_png(registry.FOLDERS["prior"] / f"{name}.png", tile(grid, GRID_SIDE))
    print(f"{file} {file.stat().st_size / 1e6:.2f} MB sha256 {digest}")


if __name__ == "__main__":
    main()
