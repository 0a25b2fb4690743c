"""A measured line: our value, another's beside it, and its target, which its module names."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Whether a target was met."""

    MET = "met"
    MISSED = "missed"
    NONE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound, of exactly one kind.

    Attributes:
        faster: The other's value is at least so many times ours.
        ratio: Ours is at most so many times the other's.
        value: Ours is at most this.
    """

    faster: float | None = None
    ratio: float | None = None
    value: float | None = None

    def text(self, unit: str) -> str:
        """Write it as the table shows it."""
        if self.faster is not None:
            return f"≥ {self.faster:g}× faster"
        if self.ratio is not None:
            return f"≤ {self.ratio:g}×"
        return f"≤ {self.value:g} {unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of a table.

    Attributes:
        state: What the tables held, such as "1M finished".
        ours: The median, in `unit`.
        samples: How many measurements the median is of.
        against: What `theirs` is; empty without a baseline.
    """

    what: str
    state: str
    ours: float
    unit: str = "ms"
    samples: int = 1
    against: str = ""
    theirs: float | None = None
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """Give ours by theirs."""
        return self.ours / self.theirs if self.theirs else None

    @property
    def verdict(self) -> Verdict:
        """Compare with the target."""
        if self.target is None:
            return Verdict.NONE
        bound = self.target
        if bound.value is not None:
            met = self.ours <= bound.value
        elif self.ratio is None:
            return Verdict.NONE
        elif bound.faster is not None:
            met = 1 / self.ratio >= bound.faster
        else:
            met = bound.ratio is not None and self.ratio <= bound.ratio
        return Verdict.MET if met else Verdict.MISSED

    @property
    def comparison(self) -> str:
        """Write the ratio the way its target is written."""
        if self.ratio is None:
            return ""
        bound = self.target
        loose = bound is None or bound.value is not None
        if (loose and self.ratio < 0.5) or (bound is not None and bound.faster is not None):
            return f"{1 / self.ratio:,.1f}× {'faster' if self.unit == 'ms' else 'less'}"
        return f"{self.ratio:.2f}×"
