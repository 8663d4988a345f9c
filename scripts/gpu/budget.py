"""How long each step of `scripts/gpu_run.sh` may take.

    python scripts/gpu/budget.py STEP STEP,STEP,... SECONDS_LEFT [LEAST]

prints the seconds for STEP, 0 where too few are left for it. A step gets its share of the time that
is left for itself and the steps after it, so that what one does not need the later ones get; the
last of those that were asked for gets all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """One step.

    Attributes:
        share: weight against the other steps.
        least: seconds below which starting it is no use.
    """

    share: float
    least: float


#: In the order of value. Training takes whatever it gets, so it comes last.
STEPS = {
    "environment": Step(3, 5),
    "build": Step(16, 20),
    "tests": Step(12, 20),
    "memcheck": Step(7, 30),
    "racecheck": Step(7, 30),
    "bench-ops": Step(12, 30),
    "bench-search": Step(7, 30),
    "bench-match": Step(6, 20),
    "bench-1024": Step(10, 40),
    "bench-train": Step(8, 40),
    "training": Step(12, 60),
}


def chosen_steps(names: str) -> list[str]:
    """Reads a list with commas, in the order of the table; "all" is every step.

    Raises:
        ValueError: a name is none of a step.
    """
    wanted = list(STEPS) if names == "all" else names.split(",")
    unknown = [name for name in wanted if name not in STEPS]
    if unknown:
        raise ValueError(f"no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    return [name for name in STEPS if name in wanted]


def limit(step: str, steps: Sequence[str], left: float, least: float | None = None) -> int:
    """Returns the whole seconds that a step may take, 0 if it should be left out.

    Args:
        step: its name.
        steps: those that were asked for, in the order of the table.
        left: seconds until everything must have ended.
        least: takes the place of the step's own.
    """
    if step not in steps:
        return 0
    following = steps[list(steps).index(step) :]
    seconds = left * STEPS[step].share / sum(STEPS[name].share for name in following)
    needed = STEPS[step].least if least is None else least
    return int(seconds) if seconds >= needed else 0


def main(words: Sequence[str]) -> int:
    """Prints a limit; with one list only, checks it and prints the steps."""
    try:
        if len(words) == 1:
            print(" ".join(chosen_steps(words[0])))
        else:
            step, names, left, *least = words
            needed = float(least[0]) if least else None
            print(limit(step, chosen_steps(names), float(left), needed))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
