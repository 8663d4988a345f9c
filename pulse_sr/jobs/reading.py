"""One input on its way from its file to the search."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pulse_sr.alignment.intake import low_res_face
from pulse_sr.errors import InputError
from pulse_sr.files.atomic import remove_leftovers
from pulse_sr.images.read import read_image
from pulse_sr.inversion.stream import Request
from pulse_sr.jobs.placement import Placement
from pulse_sr.jobs.plan import Plan
from pulse_sr.jobs.steps import FOLDER, begin_steps
from pulse_sr.jobs.task import Task
from pulse_sr.report.animation import StepFrames


@dataclass(frozen=True)
class Taken:
    """An input that is with the search.

    Attributes:
        place: of its task in the plan.
        task: which input, which samples.
        placement: for a face of a photo: where its samples are pasted.
        load_s: seconds that reading it took.
        frames: what the search tells its steps to, with `--save-steps`.
    """

    place: int
    task: Task
    placement: Placement | None
    load_s: float
    frames: StepFrames | None


def read_input(plan: Plan, place: int, task: Task) -> Request:
    """Reads one input of a plan as it is to be searched.

    Args:
        plan: the run.
        place: of the task in the plan.
        task: which input, which samples.

    Returns:
        the request; its tag is a `Taken`.

    Raises:
        PulseError: the input can not be read, has no face, or is another one than planned.
    """
    if task.refusal is not None:
        raise task.refusal
    started = time.perf_counter()
    image = read_image(task.path)
    if image.sha256 != task.sha256:
        raise InputError(f"{task.path} changed while the run was going", "run the command again")
    folder = plan.out / task.stem
    for each in (folder, folder / FOLDER):  # an earlier run may have been killed here
        remove_leftovers(each)
    placement = None
    if task.face is not None:
        placement = Placement(image, task.face, task.base)
        image = low_res_face(image, task.face, plan.prior.resolution)
    frames = None
    if plan.options.save_steps:
        keep = task.action == "extend"
        frames = begin_steps(folder, plan.config, keep=keep)
    taken = Taken(place, task, placement, time.perf_counter() - started, frames)
    return Request(image, task.indices, taken, None if frames is None else frames.on_step)
