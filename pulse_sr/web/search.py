"""One search for one visitor, in a thread: how far it is, what it looks like, and how it stops.

Shape legend: R high-res side.
"""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import threading
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from pulse_sr.errors import PulseError, describe_error
from pulse_sr.images.pixels import to_pillow, to_uint8
from pulse_sr.inversion.result import Result
from pulse_sr.inversion.stream import SearchProgress, search_images
from pulse_sr.jobs.plan import Plan
from pulse_sr.jobs.reading import TaskRequest
from pulse_sr.jobs.search_worker import Record
from pulse_sr.jobs.searching import run_plan
from pulse_sr.jobs.task import Task

log = logging.getLogger(__name__)

#: The intermediate image changes at most so often, in seconds.
_PICTURE_S = 0.5


class Stopped(BaseException):
    """The search was stopped. Not an `Exception`: no job should take it for a failed input."""


@dataclass(frozen=True)
class State:
    """How far a search is.

    Attributes:
        words: what is going on.
        share: which part of the work is done, 0 to 1.
        picture: the first sample as it is now, a data URL of a JPEG; empty before there is one.
    """

    words: str = "Reading the picture"
    share: float = 0.0
    picture: str = ""


class Search:
    """Carries out a plan in a thread.

    Args:
        plan: of one upload.
        time_limit: seconds after which it stops.

    Attributes:
        state: how far it is; replaced as a whole, so that other threads may read it.
        results: what was found, by the stems of the faces.
        records: of the job.
        error: the sentence that says why there is nothing to show; empty: there is.
    """

    def __init__(self, plan: Plan, time_limit: float) -> None:
        self.plan, self.time_limit = plan, time_limit
        self.state = State()
        self.results: dict[str, Result] = {}
        self.records: list[Record] = []
        self.error = ""
        self._stop, self._done = threading.Event(), threading.Event()
        self._ends = self._drawn = 0.0
        self._thread = threading.Thread(target=self._work, name="search", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._ends = time.monotonic() + self.time_limit
        self._thread.start()

    def stop(self) -> None:
        """Has it end at its next step."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for the end, so many seconds at most; returns whether it has come."""
        return not self._thread.ident or self._done.wait(seconds)

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._thread.is_alive()

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped it."""
        return self._stop.is_set()

    def _work(self) -> None:
        try:
            running = run_plan(
                self.plan, search=self._watched, progress=self._progress, pasting=self._pasting
            )
            with contextlib.closing(running):
                for record in running:
                    self.records.append(record)
                    self._check()
            if not self.results:
                self.error = next((each.error for each in self.records), "nothing was searched")
        except Stopped as reason:
            self.error = str(reason)
        except Exception as error:
            if not isinstance(error, PulseError):
                log.exception("a search failed")
            self.error = describe_error(error)[0]
        finally:
            self._done.set()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped("The search was stopped.")
        if time.monotonic() > self._ends:
            raise Stopped(
                f"The search was stopped after {self.time_limit:g} s, the limit of this page: "
                "choose fewer samples or another method."
            )

    def _watched(
        self, requests: Iterable[TaskRequest], *args: Any, **more: Any
    ) -> Generator[tuple[TaskRequest, Result | Exception], None, None]:
        """The stream of searches, watched: its steps are drawn, its results kept for the page."""
        watched = (replace(request, on_step=self._step) for request in requests)
        with contextlib.closing(search_images(watched, *args, **more)) as found:
            for request, outcome in found:
                if isinstance(outcome, Result):
                    self.results[request.task.stem] = outcome
                yield request, outcome

    def _step(self, index: int, step: int, image: torch.Tensor, db: float) -> None:
        self._check()
        now = time.monotonic()
        if index == 0 and now - self._drawn >= _PICTURE_S:
            self._drawn = now
            self.state = replace(self.state, picture=_data_url(image))

    def _progress(self, task: Task, step: SearchProgress) -> None:
        done = [each.stem for each in self.plan.tasks].index(task.stem)
        share = (done + (step.step + 1) / max(step.steps, 1)) / len(self.plan.tasks)
        whose = "" if task.face is None else f" for face {task.face.index}"
        words = f"Searching{whose}: step {step.step} of {step.steps}, {step.best_db:.1f} dB"
        self.state = replace(self.state, words=words, share=min(share, 1.0))

    def _pasting(self, photo: str, done: int, total: int) -> None:
        words = f"Putting the faces into the photo: {done} of {total}"
        self.state = replace(self.state, words=words, share=1.0)


def _data_url(image: torch.Tensor) -> str:  # [3, R, R] in [0, 1]
    picture = to_pillow(to_uint8(image.detach().float().cpu().numpy()))
    picture.thumbnail((256, 256))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
