"""The acceptance test of the demo: compare the rows in the tables with the positions held.

Pure functions over values that `run.Observer` reads.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import PositionUpdate, Source

TIME_LIMIT_S = 60.0
"""The time in which each leg must have a current row, for a start with existing tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The legs held at the broker, divided by the path that must value them."""

    streamed: frozenset[Key]
    queued: frozenset[Key]

    @property
    def legs(self) -> int:
        """The number of legs held."""
        return len(self.streamed) + len(self.queued)

    @property
    def lines(self) -> int:
        """The number of market data lines that the stream needs: one per conid."""
        return len({conid for _, conid in self.streamed})


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentLegs:
    """The number of legs whose value is of this run, by the path that wrote the newest row.

    A row of an earlier run counts if the broker has confirmed its value in this one.

    Attributes:
        streamed: Streamed legs whose newest row came from the stream.
        queued: Queued legs whose newest row came from the queue.
        misrouted: Legs whose newest row came from the other path.
    """

    streamed: int
    queued: int
    misrouted: int

    @property
    def legs(self) -> int:
        """The number of legs with a current row from either path."""
        return self.streamed + self.queued + self.misrouted


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceResult:
    """One figure of the acceptance test: the wanted value and the value found."""

    name: str
    wanted: str
    found: str
    met: bool


def expect_paths(held: Iterable[Key], legs: Iterable[ActiveContract]) -> Expectation:
    """Divide the legs held by the registry: an active conid streams in each account."""
    held = frozenset(held)
    active = {leg.conid for leg in legs if leg.removed_at is None}
    streamed = frozenset(key for key in held if key[1] in active)
    return Expectation(streamed=streamed, queued=held - streamed)


def count_coverage(
    expectation: Expectation,
    latest: Iterable[PositionUpdate],
    *,
    since: datetime,
    confirmed: Mapping[Key, datetime | None] | None = None,
) -> CurrentLegs:
    """Count the legs whose newest row was written, or confirmed, at `since` or later.

    Args:
        expectation: The legs held.
        latest: The newest row of each leg.
        since: The start of the run.
        confirmed: When the source of a row last confirmed its value, as far as it is known.
    """
    times = confirmed or {}
    current = {
        (row.account, row.conid): row.source
        for row in latest
        if row.timestamp >= since
        or ((at := times.get((row.account, row.conid))) is not None and at >= since)
    }
    streamed = sum(current.get(key) is Source.STREAM for key in expectation.streamed)
    queued = sum(current.get(key) is Source.QUEUE for key in expectation.queued)
    legs = len(current.keys() & (expectation.streamed | expectation.queued))
    return CurrentLegs(streamed=streamed, queued=queued, misrouted=legs - streamed - queued)


def is_complete(expectation: Expectation, coverage: CurrentLegs) -> bool:
    """Return whether each leg has a current row from its own path."""
    return coverage.streamed == len(expectation.streamed) and coverage.queued == len(
        expectation.queued
    )


def evaluate(
    expectation: Expectation,
    coverage: CurrentLegs,
    *,
    complete_after_s: float | None,
    limit_s: float,
    underlyings: int,
    counts: Mapping[str, Any],
) -> tuple[AcceptanceResult, ...]:
    """Compare the figures of a run with the figures that the demo promises.

    Args:
        complete_after_s: Seconds from the start until each leg had a current row; None if that
            did not happen.
        limit_s: The time allowed for it, in seconds.
        underlyings: The number of underlyings of the holdings, which have one line each.
        counts: What the simulator counted, as its control port answers: `peak_lines` is the
            highest number of lines in use at once.
    """

    def count(name: str, wanted: int, found: int) -> AcceptanceResult:
        return AcceptanceResult(
            name=name, wanted=str(wanted), found=str(found), met=wanted == found
        )

    in_time = complete_after_s is not None and complete_after_s <= limit_s
    duration = "not complete" if complete_after_s is None else f"{complete_after_s:.1f} s"
    return (
        count("legs with a current row", expectation.legs, coverage.legs),
        count("  by STREAM", len(expectation.streamed), coverage.streamed),
        count("  by QUEUE", len(expectation.queued), coverage.queued),
        AcceptanceResult(
            name="all current after",
            wanted=f"at most {limit_s:.0f} s",
            found=duration,
            met=in_time,
        ),
        AcceptanceResult(
            name="peak of market data lines",
            wanted=f"{expectation.lines} legs + {underlyings} underlyings",
            found=str(counts["peak_lines"]),
            met=counts["peak_lines"] == expectation.lines + underlyings,
        ),
        count("order messages at the broker", 0, len(counts["orders_received"])),
    )
