"""Who is on the page, and the folder of each: it goes when the visitor does.

ROOT/visits/<random>/upload/<name>    the picture as it came
ROOT/visits/<random>/<n>/...          what the n-th search wrote, and what the page shows of it
ROOT/cache/...                        where gradio puts uploads until a visit takes them
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_sr.errors import InputError, UsageError
from pulse_sr.files.atomic import make_folder

if TYPE_CHECKING:
    from pulse_sr.web.looking import Look
    from pulse_sr.web.results import Outcome
    from pulse_sr.web.search import Search

log = logging.getLogger(__name__)

#: Visits that nothing was heard of for so many seconds end, and so do uploads that nobody took.
IDLE_S, UNTAKEN_S = 3600.0, 600.0
#: How often that is looked at, in seconds.
SWEEP_S = 60.0
#: Visits at the same time: each holds an upload and the results of one search.
MOST_VISITS = 100


@dataclass(eq=False)
class Visit:
    """One open page.

    Attributes:
        folder: of its files alone; the name can not be guessed.
        look: what was found in its picture; None before there is one.
        search: the one that is going on, or was the last.
        outcome: what the page shows of it.
        cached: where gradio keeps its upload.
        seen: when something was last heard of it, `time.monotonic`.
        searches: how many there were.
        stopped: Stop was pressed since the last search was asked for, maybe before it began.
    """

    folder: Path
    look: Look | None = None
    search: Search | None = None
    outcome: Outcome | None = None
    cached: Path | None = None
    seen: float = field(default_factory=time.monotonic)
    searches: int = 0
    stopped: bool = False

    def next_folder(self) -> Path:
        """Returns the folder of a new search; that of the last one is removed."""
        shutil.rmtree(self.folder / str(self.searches), ignore_errors=True)
        self.searches += 1
        self.outcome = None
        return self.folder / str(self.searches)


class Visits:
    """All open pages.

    Args:
        root: a folder of the server alone.
    """

    def __init__(self, root: Path) -> None:
        self.folder, self.cache = root / "visits", root / "cache"
        for each in (self.folder, self.cache):
            make_folder(each)
        self._open: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def find(self, session: str) -> Visit | None:
        """Returns the visit of a session; None before its first upload and after its end."""
        with self._lock:
            visit = self._open.get(session)
            if visit is not None:
                visit.seen = time.monotonic()
            return visit

    def of(self, session: str) -> Visit:
        """Returns the visit of a session, a new one where there is none.

        Raises:
            UsageError: there are too many visitors.
        """
        with self._lock:
            visit = self._open.get(session)
            if visit is None:
                if len(self._open) >= MOST_VISITS:
                    raise UsageError("too many people use this page", "try again later")
                visit = Visit(self.folder / secrets.token_hex(16))
                visit.folder.mkdir(mode=0o700)
                self._open[session] = visit
            visit.seen = time.monotonic()
            return visit

    def take(self, session: str, cached: Path) -> Path:
        """Takes an upload into the folder of a visit; what it had before goes.

        Two visitors with equal files have one in gradio's cache: it goes with the last of them.

        Returns:
            the picture in that folder.

        Raises:
            InputError: the upload is not there any more.
        """
        visit = self.of(session)
        if visit.search is not None:
            visit.search.stop()
            visit.search.wait()
        visit.look = visit.search = None
        visit.next_folder()
        folder = visit.folder / "upload"
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        with self._lock:
            earlier, visit.cached = visit.cached, cached
            self._release(earlier)
        try:
            return Path(shutil.copyfile(cached, folder / cached.name))
        except OSError as error:
            raise InputError("the upload is gone", "upload it again") from error

    def close(self, session: str) -> None:
        """Ends a visit: its search stops, its files are removed."""
        with self._lock:
            visit = self._open.pop(session, None)
            if visit is None:
                return
            self._release(visit.cached)
        if visit.search is not None:
            visit.search.stop()
            visit.search.wait()
        shutil.rmtree(visit.folder, ignore_errors=True)

    def close_all(self) -> None:
        """Ends all visits."""
        for session in list(self._open):
            self.close(session)

    def sweep(self) -> None:
        """Ends visits that nothing was heard of for long, removes uploads that nobody took."""
        now = time.monotonic()
        with self._lock:
            idle = [
                session
                for session, visit in self._open.items()
                if now - visit.seen > IDLE_S and not (visit.search and visit.search.running)
            ]
        for session in idle:
            self.close(session)
        with self._lock:
            known = {visit.folder for visit in self._open.values()}
            for folder in set(self.folder.iterdir()) - known:  # written to while its visit ended
                shutil.rmtree(folder, ignore_errors=True)
            taken = {visit.cached for visit in self._open.values()}
            for path in self.cache.rglob("*"):
                if path.is_file() and path not in taken and _age(path) > UNTAKEN_S:
                    _remove(path)

    def _release(self, cached: Path | None) -> None:
        """Removes an upload from gradio's cache where no visit holds it."""
        if cached is not None and all(each.cached != cached for each in self._open.values()):
            _remove(cached)


def sweeping(visits: Visits, ended: threading.Event) -> threading.Thread:
    """Starts a thread that sweeps until the server has ended."""

    def sweep() -> None:
        while not ended.wait(SWEEP_S):
            try:
                visits.sweep()
            except OSError:
                log.exception("old visits could not be removed")

    thread = threading.Thread(target=sweep, name="sweep", daemon=True)
    thread.start()
    return thread


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError:  # something else is in it, or another thread was faster
        log.debug("%s stays", path.parent)
