"""Inputs and results at URLs: a job sees paths of this machine, and nothing of it changes.

The inputs are fetched before the job is planned. The run folder is a temporary one: of what lies at
the URL it has the records, by which a job resumes, and empty files for what these tell of, which is
fetched where an input is worked on again. The files of an input are sent when it is done, records
last, and removed.

Paths and URLs stand for each other in records, in the manifest and in what is told.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from pulse_sr.errors import UsageError
from pulse_sr.files.atomic import make_folder, write_atomic
from pulse_sr.files.documents import json_bytes
from pulse_sr.files.remote import fetch, file_system, is_url, list_url, send
from pulse_sr.images.find import image_suffixes, listed_inputs
from pulse_sr.images.read import MAX_BYTES
from pulse_sr.jobs.job import Executor
from pulse_sr.jobs.manifest import NAME, RECORD, put_rows, read_rows
from pulse_sr.jobs.staged_worker import StagedExecutor

V = TypeVar("V")

_THREADS = 8


@dataclass
class Stage:
    """Where the inputs and the results of a job are, for a job that knows paths alone.

    Attributes:
        inputs: files, folders and globs of this machine.
        out: the run folder on this machine.
        url: where the results go; None: they stay in `out`.
        folder: the temporary one; None: nothing is at a URL.
        url_of: of a fetched input, by its path.
        present: the files that are at `url` since before, by the name of their input.
        opened: the names of the inputs whose files were fetched.
    """

    inputs: list[str]
    out: Path
    url: str | None = None
    folder: Path | None = None
    url_of: dict[str, str] = field(default_factory=dict)
    present: dict[str, list[str]] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, inputs: Sequence[str], out: str | Path, *, recursive: bool = False) -> Self:
        """Fetches the inputs, and the records of the run folder.

        Args:
            inputs: files, folders, globs and lists (`images.find.listed_inputs`), also by URL.
            out: the run folder, or the URL of one.
            recursive: take the subfolders of folders too.

        Raises:
            UsageError: there is nothing at a URL.
            InputError: a file is too large.
            SetupError: one can not be reached, or the package for it is missing.
        """
        words = listed_inputs([str(each) for each in inputs])
        if not is_url(out) and not any(map(is_url, words)):
            return cls([str(each) for each in inputs], Path(out))
        folder = Path(tempfile.mkdtemp(prefix="pulse-sr-"))
        url = str(out).rstrip("/") if is_url(out) else None
        stage = cls([], Path(out) if url is None else folder / "out", url, folder)
        try:
            stage._fetch_inputs(words, recursive)
            stage._fetch_records()
        except BaseException:
            stage.close(complete=False)
            raise
        return stage

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self, *, complete: bool = True) -> None:
        """Sends the manifest, unless nothing was begun, and removes the temporary folder."""
        try:
            if complete and self.url is not None and (self.out / NAME).is_file():
                self._merge_rows()
                self.send([self.out / NAME])
        finally:
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)

    def executor(self, executor: Executor) -> Executor:
        """An executor whose workers fetch what they need and send what they made."""
        if self.folder is None:
            return executor
        return StagedExecutor(self, executor)

    def named(self, value: V) -> V:
        """A text, document or record with URLs in place of our temporary paths."""
        return value if self.folder is None else _mapped(value, self._named)

    def fetch(self, path: Path) -> None:
        """Makes sure that an input is on this machine; raises as `of`."""
        url = self.url_of.get(str(path))
        if url is not None and not path.is_file():
            fetch(url, path, MAX_BYTES)

    def complete(self, stem: str) -> None:
        """Fetches the files of an input that is worked on again; raises as `of`."""
        self.opened.add(stem)
        for name in self.present.get(stem, ()):
            path = self.out / name
            if not path.is_file() or not path.stat().st_size:
                self._fetch_result(path)

    def deliver(self, stems: Iterable[str], crops: Iterable[str] = ()) -> None:
        """Sends the files of inputs, and of crops by their names, the records last; removes them.

        Raises:
            SetupError: the place can not be written.
        """
        if self.url is None:
            return
        names = [*stems, *crops]
        files = [self.out / f"{name}{suffix}" for name in names for suffix in (".png", ".json")]
        files += [path for stem in stems for path in (self.out / stem).rglob("*")]
        files += [path for crop in crops for path in self.out.glob(f"lr_*/{glob.escape(crop)}.png")]
        made = [path for path in dict.fromkeys(files) if path.is_file() and path.stat().st_size]
        self.send(made)
        for path in made:
            if path.suffix != ".json":
                path.write_bytes(b"")  # the job sees that it is there

    def send(self, files: Sequence[Path]) -> None:
        """Sends files of the run folder, JSON last; raises as `deliver`."""
        if self.url is None:
            return
        for path in sorted(files, key=lambda path: (path.suffix == ".json", path)):
            sent = path
            if path.suffix == ".json" and self.folder is not None:
                document = self.named(json.loads(path.read_bytes()))
                sent = self.folder / f"sent-{hashlib.sha256(str(path).encode()).hexdigest()}.json"
                sent.write_bytes(json_bytes(document))
            send(sent, self._place(path))

    def _place(self, path: Path) -> str:
        return f"{self.url}/{path.relative_to(self.out).as_posix()}"

    def _fetch_inputs(self, words: Sequence[str], recursive: bool) -> None:
        assert self.folder is not None
        for word in words:
            if not is_url(word):
                self.inputs.append(word)
                continue
            for url in self._pictures(word, recursive):
                digest = hashlib.sha256(url.encode()).hexdigest()[:12]
                path = self.folder / "in" / digest / PurePosixPath(urlsplit(url).path).name
                self.inputs.append(str(path))
                self.url_of[str(path)] = url
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self.fetch, map(Path, self.url_of)))

    def _pictures(self, word: str, recursive: bool) -> list[str]:
        found = list_url(word, recursive=recursive)
        if found == [word]:
            return found
        names = ((url, PurePosixPath(url)) for url in found)
        pictures = [
            url
            for url, path in names
            if path.suffix.lower() in image_suffixes() and not path.name.startswith(".")
        ]
        if not pictures:
            raise UsageError(f"{word} has no images", "give image files such as PNG or JPEG")
        return pictures

    def _fetch_records(self) -> None:
        """Fetches the records of the run folder; of the files that have one, the names alone."""
        if self.url is None:
            return
        make_folder(self.out)
        system, root = file_system(self.url)
        there = system.find(root) if system.exists(root) else ()
        names = {PurePosixPath(place).relative_to(root) for place in there}
        for name in sorted(names):
            own = name.parts[0] if len(name.parts) > 1 else name.stem
            self.present.setdefault(own, []).append(str(name))
            path = self.out / name
            recorded = {name.parent / RECORD, PurePosixPath(f"{name.stem}.json")} & names
            if path.suffix == ".json" or not recorded:  # only its content says whose it is
                self._fetch_result(path)
            else:
                make_folder(path.parent)
                path.touch()

    def _fetch_result(self, path: Path) -> None:
        fetch(self._place(path), path, MAX_BYTES)
        if path.suffix == ".json":
            path_of = {url: path for path, url in self.url_of.items()}
            with contextlib.suppress(ValueError):  # a damaged one is left for the job to judge
                document = json.loads(path.read_bytes())
                changed = _mapped(document, lambda text: path_of.get(text, text))
                write_atomic(path, json_bytes(changed))

    def _merge_rows(self) -> None:
        """Takes over the rows that other shards have sent since."""
        assert self.folder is not None
        system, place = file_system(f"{self.url}/{NAME}")
        own = {row["stem"] for row in read_rows(self.out)}
        if system.exists(place):
            others = self.folder / "others"
            fetch(f"{self.url}/{NAME}", others / NAME, MAX_BYTES)
            put_rows(self.out, (row for row in read_rows(others) if row["stem"] not in own))

    def _named(self, text: str) -> str:
        if self.url is not None:
            text = text.replace(str(self.out), self.url)
        pattern = re.escape(f"{self.folder}/in/") + r"[0-9a-f]{12}/"
        if not re.search(pattern, text):
            return text
        for path, url in self.url_of.items():
            text = text.replace(path, url)
        return text


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A value with all texts in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_mapped(each, change) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        changed = {each.name: _mapped(getattr(value, each.name), change) for each in fields(value)}
        return replace(value, **changed)
    return value
