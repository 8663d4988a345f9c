"""Every method on the same held-back faces, and one method group by group: tables and plots.

    python scripts/bench/compare_methods.py methods FACES -o WORK --results FILE --steps-of IMAGE
    python scripts/bench/compare_methods.py groups FACES -o WORK --results FILE --by labels.csv

Both call `pulse-sr degrade`, `upscale`, `run` and `eval` and go on where they were stopped. WORK
has a folder of results for each method and its evaluation beside it; FACES are pictures of the
prior's size, of which the first `--count` by name are taken. `method_plots.py` draws the plots from
the files of results, `scripts/render_tables.py` puts the tables into the documents.
"""

from __future__ import annotations

import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from pulse_sr.bench.frame import describe_machine
from pulse_sr.files.atomic import make_folder, write_atomic
from pulse_sr.files.documents import json_bytes, read_json
from pulse_sr.images.find import find_images
from pulse_sr.images.read import read_image
from pulse_sr.images.write import write_png
from pulse_sr.metrics.registry import REGISTRY
from pulse_sr.report.animation import read_matches
from pulse_sr.report.table import result_document
from pulse_sr.sr.enlarging import bicubic

Document = dict[str, Any]

SCALE = 8
#: Options of `run` by the name of the method.
SEARCHES = {
    "phased": ("--method", "phased"),
    "pulse": ("--method", "pulse"),
    "strict-pulse": ("--method", "pulse", "--strict-pulse"),
    "ilo": ("--method", "ilo"),
    "langevin": ("--method", "langevin"),
}
#: It searches one input at a time: slots beyond its samples would be searched for nothing.
ALONE = "strict-pulse"
#: It takes a minute or more a face: it gets fewer faces, each with the samples of the intervals.
SLOW = "langevin"
#: Samples of an input whose intervals are held against the truth.
INTERVAL_SAMPLES = 8
#: Networks of the package, and how many times bicubic enlarges what they made.
NETWORKS = {"compact-face-x8": 1, "compact-x4": 2}

METHOD_COLUMNS = {
    "method": "{method}",
    "faces x samples": "{inputs} x {samples}",
    "LR-PSNR by search, dB: median (least)": "{search_median:.1f} ({search_least:.1f})",
    "as written: mean (least)": "{lr-psnr:.1f} ({lr_least:.1f})",
    "PSNR, dB": "{psnr:.2f}",
    "of the mean": "{psnr-mean:.2f}",
    "SSIM": "{ssim:.3f}",
    "SqueezeNet distance": "{squeezenet:.3f}",
    "BRISQUE": "{brisque:.1f}",
    "NIQE of the set": "{niqe-set:.1f}",
    "kernel x 1000": "{kernel:.1f}",
    "precision": "{precision:.2f}",
    "recall": "{recall:.2f}",
    "sliced Wasserstein x 1000": "{sliced-wasserstein:.0f}",
    "spectral discrepancy": "{spectrum:.4f}",
    "NTIRE diversity, %": "{diversity:.1f}",
    "pairwise distance, levels": "{pixel-distance:.1f}",
    "steps": "{steps:.0f}",
}
GROUP_COLUMNS = {
    "group": "{group}",
    "faces": "{inputs}",
    "PSNR, dB": "{psnr:.2f} [{psnr_interval[0]:.2f}, {psnr_interval[1]:.2f}]",
    "SSIM": "{ssim:.3f} [{ssim_interval[0]:.3f}, {ssim_interval[1]:.3f}]",
    "SqueezeNet distance": "{squeezenet:.3f} [{squeezenet_interval[0]:.3f}, "
    "{squeezenet_interval[1]:.3f}]",
    "BRISQUE": "{brisque:.1f} [{brisque_interval[0]:.1f}, {brisque_interval[1]:.1f}]",
    "NIQE of the set": "{niqe-set:.1f}",
    "kernel x 1000": "{kernel:.0f}",
}
GAP_COLUMNS = {
    "label": "{column}",
    "metric": "{title}",
    "largest gap": "{value:.3g} [{low:.3g}, {high:.3g}]",
    "by chance under": "{by_chance:.3g}",
    "from": "{least}",
    "to": "{most}",
}
#: Metrics whose gaps are told.
GAPS = ("psnr", "ssim", "squeezenet", "brisque")


def pulse_sr(*words: str | Path) -> None:
    """Runs a command of pulse-sr; inputs that failed are told by its folder."""
    command = [sys.executable, "-m", "pulse_sr", *map(str, words), "-q"]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)


class Faces:
    """The faces and their low-res inputs, in WORK.

    Args:
        folder: of the faces.
        work: WORK.
        count: so many by name.
    """

    def __init__(self, folder: Path, work: Path, count: int) -> None:
        paths = find_images([str(folder)])[:count]
        self.work, self.count = work, len(paths)
        # The name stays: it may be the split that labels tell rows of one file name apart by.
        self.truth, self.low = work / f"{count}" / folder.name, work / f"{count}" / "low"
        make_folder(self.truth)
        for path in paths:
            if not (self.truth / path.name).exists():
                shutil.copyfile(path, self.truth / path.name)
        pulse_sr("degrade", self.truth, "-o", self.low, "--operator", "bicubic", "--scale", SCALE)

    def results(self, method: str) -> Path:
        """Where a method's results go."""
        return self.work / f"{self.count}" / method

    def searched(self, method: str, samples: int) -> Path:
        """The run folder of a search."""
        out = self.results(f"{method}-{samples}")
        words = ["--samples", str(samples), "--align", "never"]
        words += ["--batch", str(samples)] if method == ALONE else []
        pulse_sr("run", self.low, "-o", out, *SEARCHES[method], *words)
        return out

    def evaluated(self, results: Path, *more: str | Path) -> Document:
        """What `eval` says of results; measured again where they are newer."""
        out = results.with_name(f"{results.name}-eval")
        newest = max(path.stat().st_mtime for path in results.rglob("*") if path.is_file())
        record = out / "metrics.json"
        if not record.exists() or record.stat().st_mtime < newest:
            pulse_sr("eval", results, "--reference", self.truth, "-o", out, *more)
        document: Document = read_json(record)
        return document


def enlarged(source: Path, out: Path, scale: int) -> Path:
    """Pictures of a folder enlarged by bicubic."""
    make_folder(out)
    for path in sorted(source.glob("*.png")):
        if not (out / path.name).exists():
            write_png(out / path.name, bicubic(scale)(read_image(path).pixels))
    return out


def pictures_of(faces: Faces) -> Iterator[tuple[str, Path]]:
    """The methods that give one picture: name, folder."""
    yield "bicubic", enlarged(faces.low, faces.results("bicubic"), SCALE)
    for name, further in NETWORKS.items():
        out = faces.results(name)
        pulse_sr("upscale", faces.low, "-o", out, "--model", name)
        if further == 1:
            yield name, out
        else:
            title = f"{name}, then bicubic"
            yield title, enlarged(out, out.with_name(f"{name}-bicubic"), further)


def row_of(method: str, document: Document, results: Path) -> Document:
    """The row of a method: its metrics by name with their intervals, and what the search says."""
    row: Document = {"method": method, "inputs": document["inputs"]}
    row |= values_of(document["table"])
    row["samples"] = max(len(image["samples"]) for image in document["images"])
    written = [value for image in document["images"] for value in image["each"].get("lr-psnr", [])]
    if written:
        row["lr_least"] = min(written)
    found = [read_json(path)["samples"] for path in sorted(results.glob("*/result.json"))]
    samples = [each for own in found for each in own]
    if samples:
        searched = [each["lr_psnr_search"] for each in samples]
        row |= {"search_median": statistics.median(searched), "search_least": min(searched)}
        row["steps"] = statistics.median(each["steps"] for each in samples)
    return row


def values_of(table: Sequence[Document]) -> Document:
    """Metric -> value, and `METRIC_interval` where there is one."""
    found: Document = {}
    for entry in table:
        if entry["value"] is not None:
            found[entry["metric"]] = entry["value"]
        if entry["interval"] is not None:
            found[f"{entry['metric']}_interval"] = entry["interval"]
    return found


def group_tables(document: Document) -> Document:
    """One table a label, and one of the largest gaps."""
    tables: Document = {}
    for column, groups in document["groups"].items():
        rows = [
            {"group": name, "inputs": found["inputs"], **values_of(found["table"])}
            for name, found in groups.items()
        ]
        tables[column] = {"columns": {column: "{group}", **_but_first(GROUP_COLUMNS)}, "rows": rows}
    gaps = [
        {"column": column, "metric": name, "title": REGISTRY[name].title, **found[name]}
        for column, found in document["gaps"].items()
        for name in GAPS
        if name in found
    ]
    return tables | {"gaps": {"columns": GAP_COLUMNS, "rows": gaps}}


def _but_first(columns: dict[str, str]) -> dict[str, str]:
    return dict(list(columns.items())[1:])


def steps_of(image: Path, work: Path, samples: int) -> Document:
    """LR-PSNR in dB by step of one input and each search: method -> samples -> values."""
    found: Document = {}
    for method, words in SEARCHES.items():
        if method == SLOW:  # it wanders, it does not descend
            continue
        out = work / f"steps-{method}"
        pulse_sr("run", image, "-o", out, *words, "--samples", str(samples), "--save-steps")
        folder = next(path.parent for path in out.glob("*/steps/lr_psnr.csv"))
        found[method] = [[db for _, db in own] for own in read_matches(folder).values()]
    return found


def write(file: Path, document: Document) -> None:
    """Writes a file of results, and says so."""
    make_folder(file.parent)
    write_atomic(file, json_bytes(document))
    print(file)


def environment() -> Document:
    """The machine."""
    return describe_machine(torch.device("cpu"))


def _options(function: Callable[..., None]) -> Callable[..., None]:
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    path = click.Path(path_type=Path)
    for decorate in (
        click.option("--results", type=path, required=True, help="The file of results."),
        click.option("--samples", default=2, show_default=True),
        click.option("--count", default=100, show_default=True, help="Faces, in name order."),
        click.option("-o", "--out", "work", type=path, required=True, help="WORK"),
        click.argument("folder", metavar="FACES", type=folder),
    ):
        function = decorate(function)
    return function


@click.group()
def main() -> None:
    """Tables of methods, and of groups."""


@main.command()
@_options
@click.option("--steps-of", "image", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--calibrate", default=20, show_default=True, help="Faces with 8 samples, phased.")
@click.option("--slow", default=4, show_default=True, help="The same by langevin; 0: none.")
def methods(
    folder: Path,
    work: Path,
    count: int,
    samples: int,
    results: Path,
    image: Path,
    calibrate: int,
    slow: int,
) -> None:
    """The table of all methods, and what the plots are drawn from."""
    faces = Faces(folder, work, count)
    found = [(*each, ("--lr", faces.low)) for each in pictures_of(faces)]
    found += [(name, faces.searched(name, samples), ()) for name in SEARCHES if name != SLOW]
    rows, spectra, calibration = [], {}, {}
    for name, place, more in found:
        document = faces.evaluated(place, *more)
        rows.append(row_of(name, document, place))
        spectra[name] = document["spectra"]
    for name, number in (("phased", calibrate), (SLOW, slow)):
        if not number:
            continue
        few = Faces(folder, work, number)
        place = few.searched(name, INTERVAL_SAMPLES)
        document = few.evaluated(place)
        calibration[name] = document["calibration"][0]
        if name == SLOW:
            rows.append(row_of(name, document, place))
    side = read_image(next(faces.low.glob("*.png"))).width
    words = ("--calibrate", str(calibrate), "--slow", str(slow), "--steps-of", image.name)
    write(
        results,
        result_document(
            f"{faces.count} held-back faces, {side} px to {SCALE * side}",
            command("methods", folder, count, samples, *words),
            METHOD_COLUMNS,
            rows,
            environment(),
            spectra=spectra,
            calibration=calibration,
            steps=steps_of(image, work, 4),
        ),
    )


@main.command()
@_options
@click.option("--by", type=click.Path(exists=True, path_type=Path), required=True, help="Labels.")
@click.option("--method", type=click.Choice(list(SEARCHES)), default="phased", show_default=True)
def groups(
    folder: Path, work: Path, count: int, samples: int, results: Path, by: Path, method: str
) -> None:
    """The tables of one method group by group, and the largest gaps."""
    faces = Faces(folder, work, count)
    place = faces.searched(method, samples)
    out = place.with_name(f"{place.name}-groups")
    metrics = ",".join((*GAPS, "niqe-set", "kernel"))
    words = ("--metrics", metrics, "--by", by)
    pulse_sr("eval", place, "--reference", faces.truth, "-o", out, *words)
    document = read_json(out / "metrics.json")
    title = f"{method}, {document['inputs']} held-back faces, {samples} samples each"
    about = command("groups", folder, count, samples, "--by", by.name)
    made = result_document(title, about, {}, [], environment())
    write(results, {**made, "tables": group_tables(document)})


def command(what: str, folder: Path, count: int, samples: int, *more: str) -> str:
    """The words to repeat it by, without the paths of this machine."""
    words = ["python", "scripts/bench/compare_methods.py", what, f"faces/{folder.name}"]
    return shlex.join([*words, "--count", str(count), "--samples", str(samples), *more])


if __name__ == "__main__":
    main()
