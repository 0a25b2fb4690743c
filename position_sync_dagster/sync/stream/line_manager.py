"""Who holds a line now: the allocation, put into effect on a connection."""

import logging
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import NamedTuple

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.leg import ActiveContract, LegState
from position_sync_dagster.domain.line_allocation import (
    Demand,
    LineLimit,
    allocate_lines,
    demands,
    rank,
    reason,
)
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway.codes import (
    DELAYED_TYPES,
    NOT_PERMITTED,
    GatewayCode,
    MarketDataType,
)
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.market_data_lines import MarketDataLines, Refusal
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.contract_cache import ContractCache

logger = logging.getLogger(__name__)

RETRY_WAITS: dict[int, Backoff] = {
    GatewayCode.COMPETING_SESSION: Backoff(first_s=60.0, longest_s=60.0),
    GatewayCode.CUT_BY_FARM: Backoff(first_s=30.0, longest_s=30.0),
    GatewayCode.LINE_UNKNOWN: Backoff(first_s=5.0, longest_s=300.0),
    GatewayCode.NO_CONTRACT: Backoff(first_s=60.0, longest_s=14_400.0),
}
OTHER_RETRY_WAIT = Backoff(first_s=1800.0, longest_s=14_400.0)
"""Waits until a conid that was refused is asked for again. A competing session (10197) and a farm
outage (10182) pass at any moment, a missing subscription seldom does."""

PROBE_WAIT = Backoff(first_s=60.0, longest_s=900.0)
"""Waits until a limit learned from code 101 is probed upwards."""

BURST_S = 5.0
"""So long after a refusal its burst is over: 100 requests take 2.5 s at the gateway's pace."""


class Denial(NamedTuple):
    """A conid without live data until `until` (monotonic), for the `times`-th time in a row."""

    until: float
    reason: str
    times: int
    delayed: bool


class LineManager:
    """Hold the lines that the allocation chooses, and learn what the gateway refuses.

    Args:
        clock: For what a person reads.
        monotonic: For every interval, in seconds.
    """

    def __init__(
        self,
        contracts: ContractCache,
        *,
        settings: Settings,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._contracts = contracts
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._demand: dict[int, Demand] = {}
        self._denials: dict[int, Denial] = {}
        self._held: dict[int, float] = {}
        self._delayed: set[int] = set()
        self._burst: tuple[float, int, str] | None = None
        self._limit = LineLimit(
            configured=settings.max_lines,
            reserve=settings.reserved_lines,
            wait=PROBE_WAIT,
        )

    @property
    def in_use(self) -> int:
        """Count the lines held here."""
        return len(self._held)

    @property
    def limit(self) -> int:
        """Give the lines of the login, as configured, or as the gateway showed by code 101."""
        return self._limit.lines

    def needs_allocation(
        self,
        lines: MarketDataLines,
        holdings: Iterable[BrokerPosition],
        legs: Iterable[ActiveContract],
    ) -> bool:
        """Tell whether other lines are due than those held: a hold, a denial or a wait ended."""
        now = self._monotonic()
        self._log_burst(now)
        before, self._limit = self.limit, self._limit.probed(lines.in_use, now)
        if self.limit > before:
            logger.info("up to %d lines are tried, %d before", self.limit, before)
        self._update_demand(holdings, legs)
        return self._choose(lines) != self._held.keys() or bool(self._due_for_live())

    async def allocate(
        self,
        connection: GatewayConnection,
        holdings: Iterable[BrokerPosition],
        legs: Iterable[ActiveContract],
    ) -> frozenset[int]:
        """Take and free lines; give the conids that hold one afterwards."""
        lines = connection.lines
        self._update_demand(holdings, legs)
        requested = self._choose(lines)
        details = await self._contracts.details(connection, requested)
        for conid in sorted(requested - details.keys() - self._held.keys()):
            self._deny(
                conid,
                GatewayCode.NO_CONTRACT,
                "the gateway gave no contract details",
                delayed=False,
            )
        chosen = self._choose(lines)  # a line may have been refused meanwhile
        for conid in self._held.keys() - chosen:
            self._drop(conid)
            lines.cancel(conid)
        for conid in self._due_for_live():
            lines.switch(conid)
            self._delayed.discard(conid)
            self._held[conid] = self._monotonic()
        new = (chosen - self._held.keys()) & details.keys()
        for conid in sorted(new, key=lambda c: rank(self._demand[c], self._held)):
            delayed = self._denied(conid) is not None
            lines.subscribe(
                details[conid], market_data_type=MarketDataType.DELAYED if delayed else None
            )
            self._held[conid] = self._monotonic()
            if delayed:
                self._delayed.add(conid)
        return frozenset(self._held)

    def refused(self, refusal: Refusal, lines: MarketDataLines) -> None:
        """Learn from a refusal: the number of lines, or that a conid has no market data."""
        if not self._drop(refusal.conid):
            return
        if refusal.code == GatewayCode.TOO_MANY_LINES:
            now = self._monotonic()
            self._limit = self._limit.refused(lines.in_use, now)
            self._burst = (now, self._limit.lines, refusal.text)
            return
        fallback = (
            self._settings.delayed_fallback
            and refusal.code in NOT_PERMITTED
            and refusal.market_data_type not in DELAYED_TYPES
        )
        self._deny(refusal.conid, refusal.code, f"{refusal.code} {refusal.text}", delayed=fallback)

    def reason_for(self, conid: int, state: LegState = LegState.OVERFLOW) -> str:
        """Say, in brackets, why a holding of a conid goes the way that it goes now."""
        denial = self._denied(conid)
        denied = None
        if denial is not None:
            denied = f"{'delayed data' if denial.delayed else 'no market data'}: {denial.reason}"
        said = reason(
            conid, state, wanted=self._demand, lines=self._held, denied=denied, limit=self._limit
        )
        return f" ({said})"

    def problems(self) -> list[str]:
        """Say which active conids have no live data, why, and until when; the first few."""
        found = [(c, d) for c in self._demand if (d := self._denied(c)) is not None]
        said = []
        for conid, denial in sorted(found, key=lambda pair: (pair[1].delayed, pair[0])):
            has = "streams delayed data" if denial.delayed else "has no market data"
            wait = timedelta(seconds=denial.until - self._monotonic())
            again = f"{self._clock() + wait:%H:%M} UTC"
            said.append(f"{conid} {has}: {denial.reason} (asked again at {again})")
        return said[:3] + ([f"and {len(said) - 3} more"] if len(said) > 3 else [])

    def release(self, lines: MarketDataLines) -> None:
        """Free the lines held here; those that another streamer shares stay."""
        for conid in list(self._held):
            self._drop(conid)
            lines.cancel(conid)

    def reset(self) -> None:
        """Start anew on a new connection: the old one's lines and denials ended with it.

        What is subscribed may be another thing after a log-in; the number of lines is not.
        """
        self._held, self._delayed, self._denials = {}, set(), {}

    def _update_demand(
        self, holdings: Iterable[BrokerPosition], legs: Iterable[ActiveContract]
    ) -> None:
        found = demands(holdings, legs, sec_types=self._settings.sec_types)
        self._demand = {demand.conid: demand for demand in found}

    def _choose(self, lines: MarketDataLines) -> frozenset[int]:
        denied = {c for c in self._denials if (d := self._denied(c)) is not None and not d.delayed}
        others = max(0, lines.in_use - len(self._held))  # held by others of this process
        return allocate_lines(
            (demand for conid, demand in self._demand.items() if conid not in denied),
            self._held,
            limit=self._limit.lines - others,
            reserve=self._settings.reserved_lines,
            now=self._monotonic(),
            min_hold_s=self._settings.min_hold_s,
        )

    def _denied(self, conid: int) -> Denial | None:
        denial = self._denials.get(conid)
        return denial if denial is not None and self._monotonic() < denial.until else None

    def _due_for_live(self) -> list[int]:
        """Give the lines with delayed data of which live data may be asked for again."""
        return sorted(conid for conid in self._delayed if self._denied(conid) is None)

    def _drop(self, conid: int) -> bool:
        self._delayed.discard(conid)
        return self._held.pop(conid, None) is not None

    def _deny(self, conid: int, code: int, reason: str, *, delayed: bool) -> None:
        before = self._denials.get(conid)
        still = self._denied(conid) is not None  # delayed data were refused as well
        times = (before.times if before else 0) + (not still)
        wait_s = RETRY_WAITS.get(code, OTHER_RETRY_WAIT).delay_s(times)
        self._denials[conid] = Denial(self._monotonic() + wait_s, reason, times, delayed)
        has = "streams delayed data" if delayed else "has no market data, it is queued instead"
        logger.log(
            logging.WARNING if times == 1 else logging.INFO, "conid %d %s: %s", conid, has, reason
        )

    def _log_burst(self, now: float) -> None:
        """Log a burst of refusals once, when it is over."""
        if self._burst is not None and now - self._burst[0] >= BURST_S:
            logger.warning("the gateway gives %d lines: %s", *self._burst[1:])
            self._burst = None
