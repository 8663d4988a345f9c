"""Search faces whose true pixels are known, and print a table of how well that went.

    python scripts/bench/evaluate_search.py FACES -o out.json --count 100
    python scripts/bench/evaluate_search.py FACES -o tried.json --count 16 --samples 4 --tried
    python scripts/bench/evaluate_search.py --in-range -o own.json --count 16

Every face is reduced to the prior's resolution (Lanczos), degraded to an 8-bit LR image, and
searched with each method; `--in-range` takes faces that the prior itself drew. One JSON line per
(face, method) goes to out.jsonl as soon as it is done; the same command goes on where it was
stopped. Several processes may search with different methods at once, each with an -o of its own;
their .jsonl files joined into one (cat) are those of a command that names all methods. Faces are
named by file name only; no picture is ever written.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from search_inputs import (
    Face,
    Pixels,
    drawn_faces,
    real_faces,
    reference_features,
    sha256_of,
    to_tensor,
)
from search_table import (
    NOTE,
    UNSEARCHED,
    Record,
    aggregate,
    evaluate_unsearched,
    markdown,
    measure,
)
from search_variants import TRIED, Variant, named

from pulse_sr.api import load_prior
from pulse_sr.config import DEFAULT_STEPS
from pulse_sr.devices import keep_freed_memory
from pulse_sr.errors import PulseError
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import json_bytes, json_line
from pulse_sr.operators.building import make_operator
from pulse_sr.operators.degrading import degrade
from pulse_sr.operators.projection import project_to_rounding_limit
from pulse_sr.priors.bank import draw_bank
from pulse_sr.priors.base import Prior, SeedBank
from pulse_sr.search.methods import Settings
from pulse_sr.search.records import Observed
from pulse_sr.search.samples import find_samples


def evaluate_search(
    face: Face,
    low: Pixels,
    prior: Prior,
    variant: Variant,
    bank: SeedBank | None,
    options: argparse.Namespace,
) -> Record:
    """Search one face with one variant, project, round to 8 bits, measure."""
    operator = make_operator(options.operator, low.shape[-1], prior.resolution)
    given = Observed(
        y=to_tensor(low)[0],
        operator=operator,
        side=low.shape[-1],
        sha256=sha256_of(low),
        indices=range(options.samples),
    )
    settings = Settings(
        method=variant.method,
        strict=variant.strict,
        steps=DEFAULT_STEPS[variant.method] if options.steps is None else options.steps,
        target_db=variant.target_db,
        slots=options.samples,
        seed=options.seed,
        phased=variant.phased,
    )
    started, cpu_started = time.perf_counter(), time.process_time()
    found = find_samples(prior, given, settings, bank)
    images = torch.stack([each.image for each in found]).double()
    passes = 0 if variant.strict else 10
    written = project_to_rounding_limit(operator, images, given.y, passes)
    rounded = (images * 255).round() / 255
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "steps": [each.steps for each in found],
        "lr_psnr_search": operator.lr_psnr(rounded, given.y).tolist(),
        "lr_psnr": operator.lr_psnr(written, given.y).tolist(),
        "hr_rms_change": (written - images).square().mean(dim=[1, 2, 3]).sqrt().tolist(),
    } | measure(written.float(), to_tensor(face.truth))


def run_key(prior: Prior, options: argparse.Namespace) -> str:
    """What a finished record depends on beside face and method."""
    kept = ("operator", "scale", "samples", "steps", "seed", "in_range")
    parts = [prior.sha256, *(getattr(options, name) for name in kept)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def variant_key(variant: Variant) -> str:
    """What a method's name stands for today."""
    return hashlib.sha256(repr(dataclasses.astuple(variant)).encode()).hexdigest()[:16]


def read_records(path: Path, key: str) -> list[Record]:
    """The finished records of this run, the first of each face and method.

    A line that a crash cut short is left out.
    """
    if not path.exists():
        return []
    records: dict[tuple[str, str], Record] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["key"] == key:
            records.setdefault(place(record), record)
    return list(records.values())


def place(record: Record) -> tuple[str, str]:
    """What a record is of: the face, and the variant or the method that is none."""
    return record["face"], record["variant"] or record["method"]


def missing(
    faces: Iterable[Face],
    prior: Prior,
    variants: Sequence[Variant],
    options: argparse.Namespace,
    done: set[tuple[str, str]],
) -> Iterator[Record]:
    """Evaluates what is not done yet; yields one record per (face, method)."""
    largest = max(variant.bank for variant in variants)
    whole = draw_bank(prior, largest) if largest else None
    for face in faces:
        low = degrade(face.truth, options.operator, options.scale)
        for method in UNSEARCHED:
            if (face.name, method) not in done:
                found = evaluate_unsearched(method, low, face.truth, options.operator)
                yield {"face": face.name, "method": method, "variant": ""} | found
        for variant in variants:
            key = variant_key(variant)
            if (face.name, key) in done:
                continue
            record: Record = {"face": face.name, "method": variant.name, "variant": key}
            try:
                bank = _first(whole, variant.bank)
                record |= evaluate_search(face, low, prior, variant, bank, options)
            except (PulseError, RuntimeError, ValueError) as error:
                record["error"] = f"{type(error).__name__}: {error}"
            yield record


def _first(bank: SeedBank | None, count: int) -> SeedBank | None:
    if bank is None or not count:
        return None
    return SeedBank(bank.first_seed, bank.thumbnails[:count])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder of HR faces")
    parser.add_argument("--in-range", action="store_true", help="faces that the prior draws")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="out.json; out.jsonl beside it"
    )
    parser.add_argument("--count", type=int, default=100, help="how many faces, in name order")
    parser.add_argument("--operator", default="bicubic")
    parser.add_argument("--scale", type=int, default=8)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument(
        "--method", action="append", metavar="NAME", help="may be repeated; see search_variants.py"
    )
    parser.add_argument("--tried", action="store_true", help="all variants of phased")
    parser.add_argument("--prior", help="name or path; default: the bundled one")
    parser.add_argument("--steps", type=int, help="default: those of each method")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    if (options.folder is None) != options.in_range:
        parser.error("give a folder of faces or --in-range")
    names = (options.method or []) + (list(TRIED) if options.tried else [])
    try:
        options.variants = [named(name) for name in names or ["phased", "pulse", "strict-pulse"]]
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate, write, print."""
    options = parse(arguments)
    keep_freed_memory()
    prior = load_prior(options.prior, options.device)
    key, lines = run_key(prior, options), options.out.with_suffix(".jsonl")
    if options.in_range:
        faces = drawn_faces(prior, options.count)
    else:
        faces = real_faces(options.folder, options.count, prior.resolution)
    records = read_records(lines, key)
    done = {place(record) for record in records}
    with lines.open("a", encoding="utf-8") as file:
        file.write("\n")  # ends a line that a crash cut short
        for record in missing(faces, prior, options.variants, options, done):
            records.append(record | {"key": key})
            file.write(json_line(records[-1]))
            file.flush()
            spent = f"{len(records)} records, {time.process_time():.0f} CPU s so far"
            print(f"{record['face']} {record['method']}: {spent}", file=sys.stderr)
    write_table(records, prior, options)


def write_table(records: Sequence[Record], prior: Prior, options: argparse.Namespace) -> None:
    """Aggregate the records of the methods that were asked for; write JSON, print Markdown."""
    names = {variant_key(variant): variant.name for variant in options.variants}
    asked = [r | {"method": names.get(r["variant"], r["method"])} for r in records
             if r["variant"] in names or r["method"] in UNSEARCHED]  # fmt: skip
    reference = reference_features(prior, options.folder, options.count)
    rows = aggregate(asked, reference)
    settings = {"prior": prior.name, "prior_sha256": prior.sha256, "resolution": prior.resolution}
    settings |= {k: getattr(options, k) for k in ("operator", "scale", "samples", "steps", "seed")}
    document = {"settings": settings | {"in_range": options.in_range}, "rows": rows}
    write_atomic(options.out, json_bytes(document))
    print(f"{markdown(rows)}\n\n{NOTE}")


if __name__ == "__main__":
    main()
