"""Search faces whose true pixels are known, and print a table of how well that went.

    python scripts/bench/evaluate_search.py FACES -o out.json --count 100
    python scripts/bench/evaluate_search.py FACES -o tried.json --count 16 --samples 4 --tried
    python scripts/bench/evaluate_search.py --in-range -o own.json --count 16

Every face is reduced to the prior's resolution (Lanczos), degraded to an 8-bit LR image, and
searched with each method; `--in-range` takes faces that the prior itself drew. Faces are named by
file name only; no picture is ever written.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import torch
from search_inputs import (
    Face,
    Pixels,
    drawn_faces,
    observed,
    real_faces,
    reference_features,
    to_tensor,
)
from search_table import (
    COLUMNS,
    NOTE,
    Record,
    aggregate,
    evaluate_bicubic,
    measure,
    measure_realism,
)
from search_variants import TRIED, Variant, named

from pulse_sr.api import load_prior
from pulse_sr.bench.frame import describe_machine
from pulse_sr.config import DEFAULT_STEPS
from pulse_sr.devices import keep_freed_memory
from pulse_sr.errors import PulseError
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import json_bytes
from pulse_sr.operators.base import Operator
from pulse_sr.operators.building import make_operator
from pulse_sr.operators.degrading import degrade
from pulse_sr.operators.projection import project_to_rounding_limit
from pulse_sr.priors.bank import draw_bank
from pulse_sr.priors.base import Prior, SeedBank
from pulse_sr.report.table import facts, markdown, result_document
from pulse_sr.search.methods import Settings
from pulse_sr.search.samples import find_samples


def evaluate_search(
    face: Face,
    low: Pixels,
    prior: Prior,
    operator: Operator,
    variant: Variant,
    bank: SeedBank | None,
    samples: int,
    steps: int | None,
) -> Record:
    """Search one face with one variant, project, round to 8 bits, measure."""
    given = observed(low, operator, samples)
    settings = Settings(
        method=variant.method,
        strict=variant.strict,
        steps=DEFAULT_STEPS[variant.method] if steps is None else steps,
        target_db=variant.target_db,
        slots=samples,
        seed=0,
        phased=variant.phased,
    )
    started = time.process_time()
    found = find_samples(prior, given, settings, bank)
    images = torch.stack([each.image for each in found]).double()
    written = project_to_rounding_limit(operator, images, given.y, 0 if variant.strict else 10)
    seconds = time.process_time() - started
    rounded = (images * 255).round() / 255
    return {
        "cpu_seconds": seconds,
        "steps": [each.steps for each in found],
        "lr_psnr_search": operator.lr_psnr(rounded, given.y).tolist(),
        "lr_psnr": operator.lr_psnr(written, given.y).tolist(),
        "hr_rms_change": (written - images).square().mean(dim=[1, 2, 3]).sqrt().tolist(),
    } | measure(written.float(), to_tensor(face.truth))


def evaluate(
    faces: Iterable[Face],
    prior: Prior,
    variants: list[Variant],
    spec: str,
    scale: int,
    samples: int,
    steps: int | None,
) -> Iterator[Record]:
    """One record for each face and method; the truth itself and bicubic come first."""
    side = prior.resolution // scale
    operator = make_operator(spec, side, prior.resolution)
    largest = max(variant.bank for variant in variants)
    whole = draw_bank(prior, largest) if largest else None
    for face in faces:
        low = degrade(face.truth, spec, scale)
        yield {"face": face.name, "method": "truth"} | measure_realism(to_tensor(face.truth))
        bicubic = evaluate_bicubic(low, face.truth, operator)
        yield {"face": face.name, "method": "bicubic"} | bicubic
        for variant in variants:
            record: Record = {"face": face.name, "method": variant.name}
            bank = None
            if whole is not None and variant.bank:
                bank = SeedBank(whole.first_seed, whole.thumbnails[: variant.bank])
            try:
                record |= evaluate_search(face, low, prior, operator, variant, bank, samples, steps)
            except (PulseError, RuntimeError, ValueError) as error:
                record["error"] = f"{type(error).__name__}: {error}"
            yield record


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--in-range", is_flag=True, help="Faces that the prior draws, not a folder of them.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="A JSON file.")
@click.option("--count", default=100, show_default=True, help="Faces, in name order.")
@click.option("--operator", "spec", default="bicubic", show_default=True)
@click.option("--scale", default=8, show_default=True)
@click.option("--samples", default=2, show_default=True)
@click.option("--method", "names", multiple=True, help="May be repeated; see search_variants.py.")
@click.option("--tried", is_flag=True, help="All variants of phased.")
@click.option("--prior", "name", help="Name or path; default: the bundled one.")
@click.option("--steps", type=int, help="Default: those of each method.")
@click.option("--device", default="auto", show_default=True)
def main(
    folder: Path | None,
    in_range: bool,
    out: Path,
    count: int,
    spec: str,
    scale: int,
    samples: int,
    names: tuple[str, ...],
    tried: bool,
    name: str | None,
    steps: int | None,
    device: str,
) -> None:
    """Evaluate, write, print."""
    if (folder is None) != in_range:
        raise click.UsageError("give a folder of faces or --in-range")
    try:
        chosen = [*names, *(TRIED if tried else ())] or ["phased", "pulse", "strict-pulse"]
        variants = [named(each) for each in chosen]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    keep_freed_memory()
    prior = load_prior(name, device)
    faces = real_faces(folder, count, prior.resolution) if folder else drawn_faces(prior, count)
    records = []
    for record in evaluate(faces, prior, variants, spec, scale, samples, steps):
        records.append(record)
        spent = f"{time.process_time():.0f} CPU s so far"
        print(f"{record['face']} {record['method']}: {spent}", file=sys.stderr)
    rows = aggregate(records, reference_features(prior, folder, count))
    settings = {"prior": prior.name, "prior_sha256": prior.sha256, "resolution": prior.resolution}
    settings |= {"operator": spec, "scale": scale, "samples": samples, "in_range": in_range}
    command = "python scripts/bench/evaluate_search.py"
    document = result_document(
        "", command, COLUMNS, rows, describe_machine(prior.device), settings=settings, note=NOTE
    )
    write_atomic(out, json_bytes(document))
    print(f"{markdown(document)}\n\n{facts(document)}")


if __name__ == "__main__":
    main()
