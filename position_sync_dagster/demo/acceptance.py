"""Whether the demo did what it promises; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import PositionUpdate, Source

TIME_LIMIT_S = 60.0
"""A warm start has each leg's current row by then."""

Key = tuple[str, int]
"""Account and conid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What is held at the broker, and which part of it the registry has active."""

    streamed: frozenset[Key]
    queued: frozenset[Key]

    @property
    def legs(self) -> int:
        """Count the legs held."""
        return len(self.streamed) + len(self.queued)

    @property
    def lines(self) -> int:
        """Count the lines that streaming takes: one a conid."""
        return len({conid for _, conid in self.streamed})


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How many legs have a row of this session, by the path that wrote their newest one.

    A leg whose newest row came by the other path counts as `misrouted`.
    """

    streamed: int
    queued: int
    misrouted: int

    @property
    def legs(self) -> int:
        """Count the legs that have a current row, from whichever path."""
        return self.streamed + self.queued + self.misrouted


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceResult:
    """One figure: what was wanted, what was found."""

    name: str
    wanted: str
    found: str
    met: bool


def build_expectation(held: Iterable[Key], legs: Iterable[ActiveContract]) -> Expectation:
    """Divide what is held by the registry: an active conid streams in each account."""
    held = frozenset(held)
    active = {leg.conid for leg in legs if leg.removed_at is None}
    streamed = frozenset(key for key in held if key[1] in active)
    return Expectation(streamed=streamed, queued=held - streamed)


def count_coverage(
    expectation: Expectation, latest: Iterable[PositionUpdate], *, since: datetime
) -> Coverage:
    """Count the legs whose newest row was written since `since`."""
    current = {(row.account, row.conid): row.source for row in latest if row.timestamp >= since}
    streamed = sum(current.get(key) is Source.STREAM for key in expectation.streamed)
    queued = sum(current.get(key) is Source.QUEUE for key in expectation.queued)
    legs = len(current.keys() & (expectation.streamed | expectation.queued))
    return Coverage(streamed=streamed, queued=queued, misrouted=legs - streamed - queued)


def is_complete(expectation: Expectation, coverage: Coverage) -> bool:
    """Tell whether each leg has a current row by its own path."""
    return coverage.streamed == len(expectation.streamed) and coverage.queued == len(
        expectation.queued
    )


def evaluate(
    expectation: Expectation,
    coverage: Coverage,
    *,
    complete_after_s: float | None,
    limit_s: float,
    peak_lines: int,
    order_messages: int,
) -> tuple[AcceptanceResult, ...]:
    """Compare what was found with what the demo promises.

    Args:
        complete_after_s: Seconds from the start until each leg had a current row; None: never.
        limit_s: The time that was allowed.
        peak_lines: The most lines that were in use at once, as the simulator counted.
    """

    def count(name: str, wanted: int, found: int) -> AcceptanceResult:
        return AcceptanceResult(
            name=name, wanted=str(wanted), found=str(found), met=wanted == found
        )

    in_time = complete_after_s is not None and complete_after_s <= limit_s
    took = "not complete" if complete_after_s is None else f"{complete_after_s:.1f} s"
    return (
        count("legs with a current row", expectation.legs, coverage.legs),
        count("  by STREAM", len(expectation.streamed), coverage.streamed),
        count("  by QUEUE", len(expectation.queued), coverage.queued),
        AcceptanceResult(
            name="all current after", wanted=f"at most {limit_s:.0f} s", found=took, met=in_time
        ),
        count("peak of market data lines", expectation.lines, peak_lines),
        count("order messages at the broker", 0, order_messages),
    )
