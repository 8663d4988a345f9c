"""What blind mode found: operators by how well they explain an input. See `detection`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: A runner-up this few nats behind explains the input as well: Bayes factors below e^2 are weak
#: evidence (Kass and Raftery, "Bayes Factors", 1995).
CLEAR = 2.0


@dataclass(frozen=True)
class Ranking:
    """Operators by how well the prior's faces explain the input through them, best first.

    Attributes:
        rows: (spec, score in nats relative to the best one, 0 or less): the log-likelihood, less
            `blind.COST` for every value that was fitted (a width, a level of noise).
    """

    rows: tuple[tuple[str, float], ...]

    @property
    def best(self) -> str:
        """The chosen operator."""
        return self.rows[0][0]

    @property
    def runner_up(self) -> tuple[str, float]:
        """The second operator and its score relative to the best."""
        return self.rows[1]

    def describe(self) -> list[dict[str, Any]]:
        """Returns the rows as JSON, scores to two digits."""
        return [{"spec": spec, "score": round(value, 2)} for spec, value in self.rows]

    def sentence(self) -> str:
        """Returns one line for people."""
        spec, value = self.runner_up
        behind = f"{-value:.1f} nats behind" + ("" if -value >= CLEAR else ": as good")
        return f"operator auto: {self.best} (runner-up {spec}, {behind})"


def recorded_ranking(operator: Mapping[str, Any]) -> Ranking | None:
    """Returns the ranking that the entry `operator` of a `result.json` holds, None without one."""
    rows = tuple((str(row["spec"]), float(row["score"])) for row in operator.get("candidates", ()))
    return Ranking(rows) if len(rows) > 1 else None
