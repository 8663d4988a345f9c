"""`pulse-sr align`: find the faces of photos and crop them as a prior wants them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_sr.cli.console import Console, Terminated, emit_json, table
from pulse_sr.cli.options import (
    CONTEXT,
    device_option,
    dry_run_option,
    out_option,
    standard_options,
)
from pulse_sr.config import SearchConfig
from pulse_sr.errors import UsageError

if TYPE_CHECKING:
    from pulse_sr.alignment.settings import AlignSettings

FRAMINGS = ("prior", "ffhq")


class Sides(click.ParamType):
    """Whole numbers such as `16,32`, without repeats, smallest first."""

    name = "N,N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Converts what the command line or the TOML file gave."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() for part in parts):
            self.fail(f"expects sizes such as 16,32, got {value!r}", param, ctx)
        return tuple(sorted({int(part) for part in parts}))


@click.command("align", context_settings=CONTEXT)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@out_option(None, "Folder for the crops: <stem>.png and <stem>.json each.")
@click.option(
    "--size",
    type=click.IntRange(4, 4096),
    default=256,
    show_default=True,
    metavar="N",
    help="Side of the crops.",
)
@click.option(
    "--framing",
    type=click.Choice(FRAMINGS),
    default="prior",
    show_default=True,
    help="As the prior's card says (FFHQ if it says nothing), or FFHQ.",
)
@click.option("--prior", metavar="NAME|PATH", help="The prior; without it, the bundled one.")
@click.option("--lr", type=Sides(), metavar="N,N", help="Also write low-res versions, lr_N/.")
@click.option(
    "--operator",
    default=SearchConfig().operator,
    show_default=True,
    metavar="SPEC",
    help="How --lr makes them.",
)
@click.option(
    "--landmarks",
    default="yunet",
    show_default=True,
    metavar="yunet|fan|FILE.json",
    help="Who finds the faces: YuNet (5 points), FAN (68), or a file of points.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Weight file of fan.  [default: torch hub's folder]",
)
@click.option("--download", is_flag=True, help="Let fan fetch its weights (96 MB) if missing.")
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="Leave out faces that the detector is less sure of.",
)
@click.option(
    "--min-size",
    type=click.FloatRange(min=1),
    default=24,
    show_default=True,
    help="Leave out faces whose crop has fewer px in the photo.",
)
@click.option(
    "--min-sharpness",
    type=click.FloatRange(min=0),
    default=4,
    show_default=True,
    help="Leave out blurred faces (variance of the Laplacian).",
)
@click.option("--skip-duplicates", is_flag=True, help="Leave out near-duplicates, not only note.")
@click.option(
    "--resume/--overwrite",
    default=True,
    show_default=True,
    help="Skip what is complete, or do everything again.",
)
@device_option
@dry_run_option
@standard_options
def command(
    inputs: tuple[str, ...],
    out: Path,
    resume: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Find every face of each INPUT (image files, folders or globs), crop and rotate it.

    Example: pulse-sr align holidays/ -o faces --size 128 --lr 16,32
    """
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.images.find import find_images

    paths = find_images(list(inputs))
    _keep_inputs(paths, out)
    landmarks = _landmarks(options)
    settings = _settings(options)
    if dry_run:
        _show_plan(paths, out, settings, as_json)
        return 0
    return _carry_out(paths, inputs, out, settings, landmarks, resume, console, as_json)


def _keep_inputs(paths: list[Path], out: Path) -> None:
    """Refuses a folder whose files the crops could replace."""
    for path in paths:
        if path.resolve().parent == out.resolve():
            raise UsageError(
                f"{path} lies in the output folder {out}, a crop could replace it",
                "choose another folder with -o DIR",
            )


def _landmarks(options: dict[str, Any]) -> Any:
    from pulse_sr.alignment.landmarks.choice import make_landmarks

    device = "cpu"
    if options["landmarks"] == "fan":
        from pulse_sr.devices import choose_device

        device = str(choose_device(options["device"]))
    return make_landmarks(
        options["landmarks"],
        # Fainter faces are found too, so that the report can say what was left out.
        min_score=min(0.3, options["min_score"]),
        weights=options["weights"],
        download=options["download"],
        device=device,
    )


def _settings(options: dict[str, Any]) -> AlignSettings:
    from pulse_sr.alignment.faces import Limits
    from pulse_sr.alignment.geometry import FFHQ, framing_of
    from pulse_sr.alignment.landmarks.choice import NAMES
    from pulse_sr.alignment.settings import AlignSettings
    from pulse_sr.jobs.task import file_sha256
    from pulse_sr.models import registry

    source = options["landmarks"]
    limits = (options["min_score"], options["min_size"], options["min_sharpness"])
    own_framing = options["framing"] == "prior"
    return AlignSettings(
        size=options["size"],
        framing=framing_of(registry.load(options["prior"]).card) if own_framing else FFHQ,
        lr=options["lr"] or (),
        operator=options["operator"],
        limits=Limits(*limits),
        skip_duplicates=options["skip_duplicates"],
        landmarks=source if source in NAMES else f"file {file_sha256(Path(source))}",
    )


def _carry_out(
    paths: list[Path],
    inputs: tuple[str, ...],
    out: Path,
    settings: AlignSettings,
    landmarks: Any,
    resume: bool,
    console: Console,
    as_json: bool,
) -> int:
    from pulse_sr.jobs import aligning

    rows: list[dict[str, Any]] = []
    licences = aligning.copy_licences(inputs, out)
    status = "interrupted"
    try:
        for row in aligning.align(paths, out, settings, landmarks, overwrite=not resume):
            rows.append(row)
            _show_row(row, f"[{len(rows)}/{len(paths)}]", console)
            console.live(f"[{len(rows)}/{len(paths)}] {row['stem']}")
        status = "finished"
    except (KeyboardInterrupt, Terminated):
        console.clear()
        raise
    finally:
        sheet = aligning.contact_sheet_path(out)
        _summarise(rows, len(paths), out, licences, sheet, console)
        failed = any(row["status"] == "failed" for row in rows)
        if as_json and rows:
            emit_json(
                {
                    "status": status,
                    "out": str(out),
                    "contact_sheet": None if sheet is None else str(sheet),
                    "licences": [str(each) for each in licences],
                    "exit_code": int(failed),
                    "images": rows,
                }
            )
    return int(failed)


def _show_row(row: dict[str, Any], place: str, console: Console) -> None:
    if row["status"] == "failed":
        console.error(row["error"], row["hint"])
        return
    faces = len(row["names"])
    words = f"{faces} face" + ("" if faces == 1 else "s")
    reasons = [each["reason"] for each in row["left_out"]]
    if reasons:
        words += f", {len(reasons)} left out ({reasons[0]}{', ...' if len(reasons) > 1 else ''})"
    for each in row["faces"]:
        if each["near_duplicate_of"]:
            words += f", {each['name']} nearly equals {each['near_duplicate_of']}"
    done = "complete: " if row.get("resumed") else ""
    console.line(f"{place} {row['stem']}  {done}{words}")


def _summarise(
    rows: list[dict[str, Any]],
    total: int,
    out: Path,
    licences: list[Path],
    sheet: Path | None,
    console: Console,
) -> None:
    faces = sum(len(row.get("names", ())) for row in rows)
    failed = sum(row["status"] == "failed" for row in rows)
    left_out = sum(len(row.get("left_out", ())) for row in rows)
    twins = sum(bool(f["near_duplicate_of"]) for row in rows for f in row.get("faces", ()))
    parts = [f"{faces} faces of {len(rows)} images"]
    parts += [f"{failed} without a usable face"] if failed else []
    parts += [f"{left_out} faces left out"] if left_out else []
    parts += [f"{twins} near-duplicates (--skip-duplicates leaves them out)"] if twins else []
    parts += [f"{total - len(rows)} not started"] if total > len(rows) else []
    where = f"crops in {out}" + (f", overview {sheet}" if sheet else "")
    console.line(f"{', '.join(parts)}; {where}")
    if licences:
        console.line(f"licence files copied: {', '.join(each.name for each in licences)}")


def _show_plan(paths: list[Path], out: Path, settings: AlignSettings, as_json: bool) -> None:
    from dataclasses import asdict

    described = {**asdict(settings), "framing": settings.framing.describe(), "out": str(out)}
    if as_json:
        images = [str(path) for path in paths]
        emit_json({"dry_run": True, "settings": described, "images": images})
        return
    click.echo(table([(name, str(value)) for name, value in described.items()]) + "\n")
    click.echo(table([("align", str(path)) for path in paths]))
