"""Signals at random moments: afterwards the same command finishes, with the same bytes.

A trial has a fresh place, one or two signals, and a call that nobody disturbs. What lies in the
place then is what it is without signals: no file less, none more, no temporary one.
"""

from __future__ import annotations

import itertools
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from campaign.children import Child, Outcome
from campaign.commands import COMMANDS, Command, copy_place, leftovers, result_of
from campaign.judging import DONE, INTERRUPTED, TERMINATED, difference, fault_of

#: The signals, and the exit codes that are right.
SIGNALS = {
    "SIGKILL": (-signal.SIGKILL,),
    "SIGTERM": (TERMINATED, -signal.SIGTERM),  # or it was not yet in the command line
    "SIGINT": (INTERRUPTED,),
}
#: How long an undisturbed call may take on a busy machine.
PATIENCE = 300.0


@dataclass(frozen=True)
class Undisturbed:
    """A place in which a command ran to its end.

    Attributes:
        command: the command.
        place: its inputs, for others to copy.
        result: what lay there afterwards.
        seconds: how long it took.
    """

    command: Command
    place: Path
    result: dict[str, str]
    seconds: float

    def finish(self, place: Path) -> str:
        """Call the command again in a place; returns what is wrong with it then, "" for nothing."""
        before = result_of(place)
        done = not difference(before, self.result)
        complete = self._complete(place, before)
        if self.command.repeats or not done:
            wrong = fault_of(self.command.start(place).end(PATIENCE), (DONE,))
            if wrong:
                return f"the call afterwards: {wrong}"
        again = [path for path, time in complete.items() if _written(path) != time]
        if again:
            return f"what was complete was made again: {again[0].relative_to(place)}"
        left = leftovers(place)
        if left:
            return f"temporary files were left: {', '.join(left[:3])}"
        other = difference(result_of(place), self.result)
        return f"the result is another: {other}" if other else ""

    def _complete(self, place: Path, found: dict[str, str]) -> dict[Path, int]:
        """The records of complete results, which are written last, and when they were."""
        if not self.command.keeps:
            return {}
        names = [name for name in found if name.startswith("out/") and name.endswith(".json")]
        same = [name for name in names if found[name] == self.result.get(name)]
        files = [place / name for name in same if not name.endswith("manifest.json")]
        if self.command.keeps == "list":
            manifest = place / "out" / "manifest.json"
            listed = manifest.read_text() if manifest.exists() else ""
            files = [file for file in files if f'"{file.stem}"' in listed]
        return {path: _written(path) for path in files}


def _written(path: Path) -> int:
    """When a file was, in nanoseconds; 0 if there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def run_undisturbed(name: str, work: Path) -> Undisturbed:
    """Make the inputs of a command and run it once."""
    command = COMMANDS[name]
    model = work / "model"
    command.prepare(model)
    place = copy_place(model, work / "undisturbed")
    outcome = command.start(place).end(PATIENCE)
    wrong = fault_of(outcome, (DONE,))
    if wrong:
        raise RuntimeError(f"{name}, undisturbed: {wrong}")
    return Undisturbed(command, model, result_of(place), outcome.seconds)


def kill(name: str, signal_name: str, count: int, seed: int, work: Path) -> Iterator[str]:
    """Send a signal `count` times; gives what went wrong with each, empty for nothing."""
    usual = run_undisturbed(name, work)
    rng = random.Random(f"{seed}/{name}/{signal_name}")
    number, codes = getattr(signal, signal_name), SIGNALS[signal_name]
    sent = 0
    for trial in itertools.count():
        place = copy_place(usual.place, work / f"{signal_name}-{trial}")
        wrong, times = "", min(rng.choice((1, 2)), count - sent)
        for _ in range(times):
            outcome = _disturb(usual.command.start(place), rng.uniform(0, usual.seconds), number)
            # One that ended before the signal came is no trial; what it left is looked at.
            sent += outcome.code in codes
            wrong = wrong or fault_of(outcome, (*codes, DONE))
        wrong = wrong or usual.finish(place)
        yield from [wrong and f"{signal_name}, trial {trial}: {wrong}"] * times
        if not wrong:
            shutil.rmtree(place)
        if sent >= count or trial > 3 * count:
            return


def _disturb(child: Child, seconds: float, number: int) -> Outcome:
    """Send a signal some seconds later."""
    child.run_for(seconds)
    child.send(number)
    return child.end(PATIENCE)
