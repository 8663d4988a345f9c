"""Make a bundled supervised network of a training run: half-precision weights, card, checksum.

    python scripts/bundle_network.py runs/x4 --name compact-x4 --card card.json

The first network of the registry is the default of `upscale`.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch

from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.documents import json_bytes
from pulse_sr.models.registry import FOLDERS, REGISTRY
from pulse_sr.sr.files import read_model, save_model


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True, help="Name of the bundled network.")
@click.option("--card", type=click.Path(exists=True, path_type=Path), required=True)
def main(run_dir: Path, name: str, card: Path) -> None:
    """Write pulse_sr/sr/bundled/NAME.safetensors, and its entry in registry.json."""
    model = read_model(run_dir)
    model.name = name
    model.card = json.loads(card.read_text()) | {"training": model.card["training"]}
    folder = FOLDERS["sr"]
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.safetensors"
    save_model(file, model, torch.float16)
    digest = file_sha256(file)
    registry = folder / REGISTRY
    known = json.loads(registry.read_text()) if registry.is_file() else {}
    known[name] = {"file": file.name, "sha256": digest}
    write_atomic(registry, json_bytes(known))
    print(f"{file} {file.stat().st_size / 1e6:.2f} MB sha256 {digest}")


if __name__ == "__main__":
    main()
