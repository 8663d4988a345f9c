"""From a task to what is searched: the file read, and of a photo the face."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pulse_sr.alignment.intake import low_res_face
from pulse_sr.errors import InputError
from pulse_sr.files.atomic import remove_leftovers
from pulse_sr.images.read import LowResImage, read_image
from pulse_sr.inversion.stream import Request
from pulse_sr.jobs.plan import Plan
from pulse_sr.jobs.steps import FOLDER, begin_steps
from pulse_sr.jobs.task import Task
from pulse_sr.report.animation import StepFrames


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskRequest(Request):
    """An input that is with the search.

    Attributes:
        place: of its task in the plan.
        task: what it was read for.
        load_s: seconds that reading it took.
        frames: what the search tells its steps to, with `--save-steps`.
    """

    place: int
    task: Task
    load_s: float
    frames: StepFrames | None


class Reader:
    """Reads the inputs of a plan in their order; a photo once for all its faces."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._photo: LowResImage | None = None

    def read(self, place: int, task: Task) -> TaskRequest:
        """Reads one input as it is to be searched.

        Args:
            place: of the task in the plan.
            task: which input, which samples.

        Raises:
            PulseError: the input can not be read, has no face, or is another one than planned.
        """
        if task.refusal is not None:
            raise task.refusal
        started, plan = time.perf_counter(), self.plan
        image = self._image(task)
        folder = plan.out / task.stem
        for each in (folder, folder / FOLDER):  # an earlier run may have been killed here
            remove_leftovers(each)
        frames = None
        if plan.options.save_steps:
            frames = begin_steps(folder, plan.config, keep=task.action == "extend")
        return TaskRequest(
            image,
            task.indices,
            None if frames is None else frames.on_step,
            place=place,
            task=task,
            load_s=time.perf_counter() - started,
            frames=frames,
        )

    def _image(self, task: Task) -> LowResImage:
        photo, self._photo = self._photo, None
        if photo is None or (photo.path, photo.sha256) != (str(task.path), task.sha256):
            photo = read_image(task.path)
        if photo.sha256 != task.sha256:
            raise InputError(
                f"{task.path} changed while the run was going", "run the command again"
            )
        if task.face is None:
            return photo
        if task.face.index < task.face.of:
            self._photo = photo
        return low_res_face(photo, task.face, self.plan.prior.resolution)
