"""What happens on the page: each method answers one event, with the changes by component."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from pulse_sr.config import METHODS
from pulse_sr.errors import InputError, PulseError, UsageError, describe_error
from pulse_sr.options import finite
from pulse_sr.priors.base import Prior
from pulse_sr.web import markup
from pulse_sr.web.layout import OPERATORS, Components
from pulse_sr.web.looking import Look, look, plan_search, settings, sides_of
from pulse_sr.web.options import ServeOptions
from pulse_sr.web.results import Outcome, ShownFace, gather
from pulse_sr.web.search import Search
from pulse_sr.web.visits import Visit, Visits

#: How often the page is told of the search, in seconds.
_TELL_S = 0.4

Changes = dict[Any, Any]


class Handlers:
    """The answers of the page.

    Args:
        parts: its components.
        prior: the generator, for everybody.
        options: the limits.
        visits: who is there.
    """

    def __init__(
        self, parts: Components, prior: Prior, options: ServeOptions, visits: Visits
    ) -> None:
        self.parts, self.prior, self.options, self.visits = parts, prior, options, visits

    def look(self, upload: str | None, request: gr.Request) -> Changes:
        """Answers a picture that was dropped: what it is, which faces it has."""
        parts = self.parts
        if upload is None:
            return self._without_picture()
        try:
            path = self.visits.take(_session(request), Path(upload))
            visit = self.visits.of(_session(request))
            visit.look = found = look(path, self.prior, self.options.max_pixels)
        except Exception as error:
            message, hint = _words(error)
            return self._without_picture() | {
                parts.seen: gr.update(value=markup.alert(message, hint), visible=True)
            }
        return {
            parts.seen: gr.update(value=markup.seen(_heading(found), found.remarks), visible=True),
            parts.preview: gr.update(value=str(found.preview), visible=True),
            parts.faces: gr.update(
                choices=[(f"Face {number}", number) for number in found.faces],
                value=list(found.faces),
                visible=found.is_photo,
            ),
            parts.side: gr.update(value=found.side or 0),
            parts.find: gr.update(interactive=True),
            parts.status: gr.update(value=markup.EMPTY, visible=True),
            parts.results: gr.update(visible=False),
        }

    def clear(self, request: gr.Request) -> Changes:
        """Answers that the picture was taken away: all that came of it goes."""
        self.visits.close(_session(request))
        return self._without_picture()

    def _without_picture(self) -> Changes:
        parts = self.parts
        return {
            parts.seen: gr.update(visible=False),
            parts.preview: gr.update(value=None, visible=False),
            parts.faces: gr.update(choices=[], value=[], visible=False),
            parts.side: gr.update(value=0),
            parts.find: gr.update(interactive=False),
            parts.status: gr.update(value=markup.EMPTY, visible=True),
            parts.results: gr.update(visible=False),
        }

    def queued(self, request: gr.Request) -> Changes:
        """Answers the button at once, whoever is before us."""
        parts, visit = self.parts, self.visits.find(_session(request))
        if visit is not None:
            visit.stopped = False
        return {
            parts.find: gr.update(visible=False),
            parts.stop: gr.update(visible=True),
            parts.status: gr.update(value=markup.waiting(), visible=True),
            parts.results: gr.update(visible=False),
        }

    def search(
        self,
        faces: Sequence[int],
        side: int,
        operator: str,
        samples: float,
        method: str,
        seed: float,
        request: gr.Request,
    ) -> Generator[Changes, None, None]:
        """Searches, and tells how far it is; stops where the page goes away."""
        try:
            visit = self.visits.find(_session(request))
            if visit is None:
                raise UsageError("there is no picture", "drop one first")
            if visit.stopped:  # while it waited for its turn
                yield self._told_stopped()
                return
            search = self._begin(visit, faces, side, operator, samples, method, seed)
            try:
                if visit.stopped:
                    search.stop()
                yield from self._follow(search)
                search.wait()
                if search.stopped:  # what is told here may reach the page after `stopped`
                    yield self._told_stopped()
                    return
                visit.outcome = self._gather(visit, search)
            finally:  # also where gradio closes this generator: by Stop, or as the visitor left
                search.stop()
                search.wait()
                search.results = {}
        except Exception as error:
            message, hint = _words(error)
            yield self._idle() | {
                self.parts.status: gr.update(value=markup.alert(message, hint), visible=True)
            }
            return
        yield self._idle() | self._show(visit.outcome)

    def _begin(
        self,
        visit: Visit,
        faces: Sequence[int],
        side: int,
        operator: str,
        samples: float,
        method: str,
        seed: float,
    ) -> Search:
        """Checks what was chosen, whatever the browser sent, and starts."""
        found = visit.look
        if found is None:
            raise UsageError("there is no picture", "drop one first")
        chosen = tuple(number for number in found.faces if number in list(faces))
        if found.is_photo and not chosen:
            raise UsageError("no face is chosen", "tick one or more")
        if side not in (0, *sides_of(self.prior)):
            raise UsageError(f"no such low-res size: {side}")
        if operator not in OPERATORS or method not in METHODS:
            raise UsageError("no such operator or method")
        count = int(finite(samples, 1, self.options.max_samples))
        config = settings(
            self.prior,
            (found.width, found.height),
            side or None,
            operator=operator,
            samples=count,
            method=method,
            seed=int(finite(seed, 0, 2**53)),
            device=self.options.device,
            precision=self.options.precision,
        )
        folder = visit.next_folder()
        plan = plan_search(found.path, folder / "run", self.prior, config, chosen)
        if plan.tasks[0].refusal is not None:
            raise plan.tasks[0].refusal
        visit.search = search = Search(plan, self.options.time_limit)
        search.start()
        return search

    def _follow(self, search: Search) -> Generator[Changes, None, None]:
        started = time.monotonic()
        while not search.wait(_TELL_S):
            state, seconds = search.state, time.monotonic() - started
            told = markup.progress(state.words, state.share, state.picture, seconds)
            yield {self.parts.status: gr.update(value=told, visible=True)}

    def _gather(self, visit: Visit, search: Search) -> Outcome:
        if search.error:
            raise InputError(search.error)
        return gather(search, search.plan.out.parent / "shown")

    def stop(self, request: gr.Request) -> Changes:
        """Answers the button Stop at once, also where the search has not begun."""
        visit = self.visits.find(_session(request))
        if visit is not None:
            visit.stopped = True
            if visit.search is not None:
                visit.search.stop()
        return {self.parts.status: gr.update(value=markup.said("Stopping at the next step ..."))}

    def stopped(self, request: gr.Request) -> Changes:
        """Answers when the search has ended."""
        visit = self.visits.find(_session(request))
        if visit is not None and visit.search is not None:
            visit.search.stop()  # it may have begun after `stop`
            visit.search.wait()
        return self._told_stopped()

    def _told_stopped(self) -> Changes:
        said = markup.said("Stopped. Nothing of this search was kept.")
        return self._idle() | {self.parts.status: gr.update(value=said, visible=True)}

    def refused(self, request: gr.Request) -> Changes:
        """Answers that gradio took no upload or search: the queue is full."""
        parts, visit = self.parts, self.visits.find(_session(request))
        looked = visit is not None and visit.look is not None
        said = markup.alert("too many people are waiting", "try again in a minute")
        return {
            parts.find: gr.update(visible=True, interactive=looked),
            parts.stop: gr.update(visible=False),
            parts.status: gr.update(value=said, visible=True),
        }

    def search_refused(self, request: gr.Request) -> Changes:
        """Answers that gradio took no search; Stop looks the same where it ends the connection."""
        visit = self.visits.find(_session(request))
        if visit is not None and visit.stopped:
            return self._told_stopped()
        return self.refused(request)

    def choose_face(self, name: str, request: gr.Request) -> Changes:
        """Answers the choice of another face of the photo."""
        outcome = self._outcome(request)
        face = outcome and next((each for each in outcome.faces if each.name == name), None)
        return self._show_face(face) if face else {}

    def choose_sample(self, name: str | None, event: gr.SelectData, request: gr.Request) -> Changes:
        """Answers a click on a sample: the slider shows it."""
        outcome = self._outcome(request)
        if outcome is None:
            return {}
        face = next((each for each in outcome.faces if each.name == name), outcome.faces[0])
        if not (isinstance(event.index, int) and 0 <= event.index < len(face.samples)):
            return {}
        return self._pair(face, event.index)

    def _outcome(self, request: gr.Request) -> Outcome | None:
        visit = self.visits.find(_session(request))
        return None if visit is None else visit.outcome

    def leave(self, request: gr.Request) -> None:
        """Answers that the page was closed or reloaded."""
        self.visits.close(_session(request))

    def _idle(self) -> Changes:
        return {
            self.parts.find: gr.update(visible=True, interactive=True),
            self.parts.stop: gr.update(visible=False),
        }

    def _show(self, outcome: Outcome | None) -> Changes:
        if outcome is None:  # the visitor has left meanwhile
            return {}
        parts, names = self.parts, [face.name for face in outcome.faces]
        failed = [markup.alert(each) for each in outcome.failed]
        photo = [str(each) for each in outcome.photo or ()]
        return {
            parts.status: gr.update(value="".join(failed), visible=bool(failed)),
            parts.results: gr.update(visible=True),
            parts.face: gr.update(choices=names, value=names[0], visible=len(names) > 1),
            parts.whole: gr.update(visible=bool(photo)),
            parts.photo: gr.update(value=tuple(photo) or None),
            parts.download: gr.update(value=str(outcome.archive)),
            **self._show_face(outcome.faces[0]),
        }

    def _show_face(self, face: ShownFace) -> Changes:
        parts = self.parts
        items = [
            (str(each.picture), _caption(place, each.lr_psnr, each.fine))
            for place, each in enumerate(face.samples, start=1)
        ]
        supervised = None if face.supervised is None else str(face.supervised)
        return {
            **self._pair(face, 0),
            parts.gallery: gr.update(value=items, selected_index=0),
            parts.mean: str(face.mean),
            parts.disagreement: str(face.disagreement),
            parts.beside: gr.update(visible=supervised is not None),
            parts.network: markup.caption("Supervised network", face.network),
            parts.supervised: supervised,
            parts.about: markup.said(f"{face.about}."),
        }

    def _pair(self, face: ShownFace, sample: int) -> Changes:
        pair = (str(face.bicubic), str(face.samples[sample].picture))
        said = markup.caption("Before and after", f"bicubic, and sample {sample + 1}")
        return {self.parts.slider: gr.update(value=pair), self.parts.pair: said}


def _session(request: gr.Request) -> str:
    """The name of the open page; without one, as programs may come, they share a visit."""
    return request.session_hash or "without a session"


def _caption(place: int, lr_psnr: float, fine: bool) -> str:
    return f"{place}: {lr_psnr:.1f} dB" + ("" if fine else ", below target")


def _heading(found: Look) -> str:
    size = f"{found.width} x {found.height} px"
    if not found.is_photo:
        return f"A small face of {size}: it is searched as it is"
    faces = "1 face" if found.found == 1 else f"{found.found} faces"
    return f"A photo of {size} with {faces}"


def _words(error: Exception) -> tuple[str, str]:
    """An error for a visitor: without the folders of this computer and the options of commands."""
    message, hint, _ = describe_error(error)
    if not isinstance(error, PulseError):
        return "Something went wrong on this computer", "The terminal of the server says more"
    return re.sub(r"/\S*/", "", message), "" if "--" in hint else hint
