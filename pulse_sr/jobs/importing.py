"""The jobs of `prior import`, `prior get` and `prior remove`: foreign checkpoints become priors.

What is written is a folder like that of a training run: `model.safetensors`, `latents.safetensors`
(the seed bank), `samples.png` (uncurated samples), `README.md` (the card).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pulse_sr.alignment.geometry import FFHQ, framing_of
from pulse_sr.devices import choose_device
from pulse_sr.errors import SetupError, UsageError, first_line, is_disk_full
from pulse_sr.files.atomic import is_running, make_folder, remove_leftovers, write_text_atomic
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.documents import load_json
from pulse_sr.files.lock import folder_lock
from pulse_sr.files.paths import FILE, check_out, check_path
from pulse_sr.images.write import write_png
from pulse_sr.models import registry
from pulse_sr.models.descriptor import Model
from pulse_sr.models.detect import describe, is_foreign
from pulse_sr.models.downloads import Progress, fetch, find_download
from pulse_sr.models.importers.layout import Imported
from pulse_sr.models.importing import read_foreign
from pulse_sr.models.options import ImportOptions
from pulse_sr.priors.architectures import ARCHITECTURES
from pulse_sr.priors.bank import BANK_NAME, write_bank
from pulse_sr.priors.base import Prior
from pulse_sr.priors.files import FILE_NAME, read_prior, save_prior
from pulse_sr.priors.statistics import fit_statistics, standard_statistics
from pulse_sr.report.imported_card import imported_card
from pulse_sr.training.snapshot import tile

log = logging.getLogger(__name__)

CARD_NAME, SAMPLES_NAME = "README.md", "samples.png"
#: What a folder of an imported prior holds; `remove_prior` removes nothing else.
FILES = (FILE_NAME, BANK_NAME, SAMPLES_NAME, CARD_NAME)
FRAMINGS = ("ffhq", "bundled")
GRID_SIDE = 3


def import_prior(
    file: str | Path,
    out: str | Path | None = None,
    *,
    facts: dict[str, Any] | None = None,
    **options: Any,
) -> Model:
    """Make a prior of a checkpoint of another program.

    Args:
        file: the checkpoint; nothing in it is executed.
        out: the folder to write; None: one in the user's cache, where `name` finds it.
        facts: further entries of the card.
        **options: fields of `ImportOptions`: name, licence, framing, device.

    Returns:
        The prior that was written.

    Raises:
        UsageError: the file is none of a generator that can be searched, or the folder is taken.
        SetupError: the file is damaged, or the disk is full.
    """
    file, chosen = check_path(file, FILE), ImportOptions(**options)
    name = chosen.name or _name_of(file)
    target = _free_folder(out, name)
    alignment = read_framing(chosen.framing)
    imported = read_foreign(file)
    sha256 = file_sha256(file)
    card = {
        "licence": chosen.licence or "unknown",
        "data": "unknown",
        "alignment": alignment,
        "imported": {"from": imported.source, "file": file.name, "sha256": sha256},
        **(facts or {}),
    }
    if imported.beside:
        card["imported"]["beside"] = {
            each: file_sha256(file.with_name(each)) for each in imported.beside
        }
    if imported.notes:
        card["imported"]["notes"] = imported.notes
    with _staged(target) as folder:
        _write(folder, imported, name, card, choose_device(chosen.device))
    return describe(target, torch.device("cpu"))


def load_prior(source: str | Path | None, device: str = "auto") -> Prior:
    """A prior by name or path; a foreign checkpoint is imported into the user's cache first.

    Raises:
        UsageError: no such prior.
        SetupError: no such device, or a file is damaged.
    """
    if source is not None and os.path.isfile(source) and is_foreign(Path(source)):
        source = _imported_before(Path(source)) or _import_into_cache(Path(source), device)
    return registry.load_prior(source, choose_device(device))


def get_prior(name: str, progress: Progress | None = None) -> Model:
    """Download a published checkpoint and import it under its name.

    Raises:
        UsageError: there is no such name, or it is there already.
        SetupError: it could not be downloaded, or its checksum differs.
    """
    entry = find_download(name)
    _free_folder(None, name)
    file = fetch(entry, _cache().parent / "downloads", progress)
    facts = {"data": entry.data, "url": entry.url, "commercial_use": entry.commercial}
    model = import_prior(file, name=name, licence=entry.licence, facts=facts)
    with contextlib.suppress(OSError):
        file.unlink()
    return model


def remove_prior(name: str) -> Path:
    """Remove an imported prior.

    Returns:
        the folder that is gone; files in it that no import wrote stay, with the folder.

    Raises:
        UsageError: there is none of that name, or it came with the package.
        SetupError: it can not be removed.
    """
    found = registry.installed()
    if name not in found:
        own = "came with the package" if name in registry.bundled() else "is no imported prior"
        names = ", ".join(found) or "none was imported"
        raise UsageError(f"{name!r} {own}", f"imported priors: {names}")
    folder = found[name]
    _require_imported(folder)
    try:
        for each in FILES:
            (folder / each).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise SetupError(f"{folder} can not be removed: {error.strerror}", str(folder)) from error
    return folder


def _require_imported(folder: Path) -> None:
    """Raises UsageError for a link, and for a prior that no import wrote; a damaged one may go."""
    try:
        imported = "imported" in describe(folder, torch.device("cpu")).card
    except (SetupError, UsageError):
        imported = True
    if folder.is_symlink() or not imported:
        raise UsageError(
            f"{folder} was not written by an import: it is left alone", "remove it by hand"
        )


def read_framing(framing: str) -> dict[str, Any]:
    """The entry `alignment` of a card, for "ffhq", "bundled" or a JSON file.

    Raises:
        UsageError: the file can not be read, or does not hold five points.
    """
    if framing == "ffhq":
        return FFHQ.describe()
    if framing == "bundled":
        return framing_of(registry.load().card).describe()
    try:
        found = load_json(check_path(framing, called="--framing "), dict)
        found = found.get("alignment", found)
        found = framing_of({"alignment": {"template": found.get("template", found)}})
    except (ValueError, RecursionError, AttributeError, SetupError) as error:
        raise UsageError(
            f"--framing {framing} is no framing ({first_line(error)})",
            'ffhq, bundled, or a JSON file: {"eyes": [[x, y], [x, y]], "nose": [x, y], "mouth": '
            "[[x, y], [x, y]]}",
        ) from error
    return found.describe()


def _write(
    folder: Path, imported: Imported, name: str, card: dict[str, Any], device: torch.device
) -> None:
    generator: Any = imported.generator.to(device)
    if imported.architecture == "fastgan":  # it has no mapping
        statistics = standard_statistics(generator.config.z_dim)
    else:
        statistics = fit_statistics(generator)
    adapter: Any = ARCHITECTURES[imported.architecture].prior
    prior: Prior = adapter(name, generator, statistics, card=card)
    samples = _samples(prior)
    notes = _check(samples, imported.source)
    if notes:
        card["imported"].setdefault("notes", []).extend(notes)
    save_prior(folder / FILE_NAME, prior)
    prior = read_prior(folder / FILE_NAME, device)
    write_bank(prior, folder / FILE_NAME)
    write_png(folder / SAMPLES_NAME, tile(samples, GRID_SIDE))
    text = imported_card(prior, samples=SAMPLES_NAME, size=(folder / FILE_NAME).stat().st_size)
    write_text_atomic(folder / CARD_NAME, text)


def _samples(prior: Prior) -> torch.Tensor:
    """Uncurated samples of the seeds 0 to 8, one after the other: not clamped."""
    images = []
    with torch.no_grad():
        for seed in range(GRID_SIDE**2):
            z = torch.randn(1, prior.z_dim, generator=torch.Generator().manual_seed(seed))
            w = prior.map(z.to(prior.device))[:, None].expand(-1, prior.num_ws, -1)
            images.append(prior.synthesize(w).cpu())
    return torch.cat(images)


def _check(samples: torch.Tensor, source: str) -> list[str]:
    """Refuses images that are not finite; notes what is strange about others.

    Raises:
        SetupError: an image is not finite.
    """
    if not samples.isfinite().all():
        raise SetupError(
            f"the {source} gives images that are not finite", "the file is damaged: get it again"
        )
    notes = []
    outside = ((samples < -0.25) | (samples > 1.25)).float().mean().item()
    if outside > 0.05:
        notes.append(
            f"{100 * outside:.0f} % of the values of its samples lie far outside of [0, 1]"
        )
    if samples.std(dim=0).mean() < 0.01:
        notes.append("its samples hardly differ from one another")
    return notes


def _cache() -> Path:
    folder = registry.installed_folder()
    if folder is None:
        raise SetupError("there is no home folder to keep priors in", "give a folder: -o DIR")
    return folder


def _free_folder(out: str | Path | None, name: str) -> Path:
    if out is None and name in registry.bundled():
        raise UsageError(f"{name!r} is the name of a bundled prior", "--name NAME")
    target = _cache() / name if out is None else check_out(out)
    _clear_killed(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        hint = f"pulse-sr prior remove {name}, or --name NAME" if out is None else "-o DIR"
        raise UsageError(f"{target} is there already", hint)
    return target


@contextlib.contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A folder beside the target that becomes the target when all is written.

    One inside of a target that is there: that may be a mount, or all of its place that is the
    user's. The prior itself moves last.
    """
    place = target if target.is_dir() else target.parent
    folder = place / f".{target.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True)
        yield folder
        if place == target:
            for name in reversed(FILES):
                os.replace(folder / name, target / name)
        else:
            os.replace(folder, target)
    except OSError as error:
        words = "the disk is full" if is_disk_full(error) else error.strerror or str(error)
        raise SetupError(f"{target} can not be written: {words}", "-o DIR") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_killed(target: Path) -> None:
    """Removes what killed imports to this target left, where only our files lie in it."""
    if os.name != "posix":
        return
    name = re.compile(rf"\.{re.escape(target.name)}-(\d{{1,9}})-[0-9a-f]{{8}}")
    for folder in (*target.parent.glob(".*"), *target.glob(".*")):
        found = name.fullmatch(folder.name)
        if found and folder.is_dir() and not folder.is_symlink() and not is_running(int(found[1])):
            remove_leftovers(folder)
            if {each.name for each in folder.iterdir()} <= set(FILES):
                shutil.rmtree(folder, ignore_errors=True)


def _imported_before(file: Path) -> Path | None:
    """The prior in the cache that was made of this very file, and of those beside it."""
    models = registry.installed_models()
    digest = file_sha256(file) if models else ""
    for model in models:
        made_of = model.card.get("imported")
        if not isinstance(made_of, dict) or made_of.get("sha256") != digest:
            continue
        if _are_beside(file, made_of.get("beside", {})):
            log.info("%s was imported before: using %s", file, model.path.parent)
            return model.path.parent
    return None


def _are_beside(file: Path, wanted: Any) -> bool:
    """Whether files of these names and checksums lie in the folder of a file."""
    try:
        return all(file_sha256(file.with_name(name)) == sha for name, sha in wanted.items())
    except (AttributeError, TypeError, ValueError, OSError, SetupError, UsageError):
        return False  # a card that somebody changed, or a file that is not there


def _name_of(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", file.stem).strip("-.+_")[:100] or "prior"


def _import_into_cache(file: Path, device: str) -> Path:
    cache, own = _cache(), f"{_name_of(file)[:80]}-{file_sha256(file)[:8]}"
    make_folder(cache)
    with folder_lock(cache):  # other processes of the same run want it at the same time
        found = _imported_before(file)
        if found is not None:
            return found
        # Taken by one made with another file beside it, or by what is damaged.
        names = itertools.chain([own], (f"{own}-{number}" for number in itertools.count(2)))
        name = next(each for each in names if not (cache / each).exists())
        log.warning(
            "%s is imported into the cache first, as %s, with FFHQ's framing (to choose another "
            "one, and to note its licence: pulse-sr prior import)",
            file,
            name,
        )
        return import_prior(file, name=name, device=device).path.parent
