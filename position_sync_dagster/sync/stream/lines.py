"""The market data lines that the stream holds: the allocation, put into effect."""

import logging
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import NamedTuple

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
from position_sync_dagster.gateway.accounts.holdings import HoldingsBook
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
"""Waits until a line that was refused is requested again. A competing session (10197) and a farm
outage (10182) may end at any moment; a missing subscription seldom comes."""

PROBE_WAIT = Backoff(first_s=60.0, longest_s=900.0)
"""Waits until more lines than a limit learned from code 101 are tried."""

BURST_S = 5.0
"""A burst of refusals is over this long after the last one: 100 requests take 2.5 s at the pace of
the gateway."""


class Denial(NamedTuple):
    """A conid that the gateway gives no live data for.

    Attributes:
        until: When live data may be requested again, in monotonic seconds.
        times: Number of refusals in a row.
        delayed: Whether it streams delayed data instead.
    """

    until: float
    reason: str
    times: int
    delayed: bool


class LineManager:
    """Holds the lines that the allocation chooses, and learns from what the gateway refuses.

    Args:
        on_ended: Called with each conid whose line was refused or ended, and with the reason.
        clock: The clock of the times that a person reads.
        monotonic: The clock of every interval, in seconds.
    """

    def __init__(
        self,
        contracts: ContractCache,
        *,
        settings: Settings,
        on_ended: Callable[[int, str], None] = lambda _conid, _reason: None,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._contracts = contracts
        self._settings = settings
        self._on_ended = on_ended
        self._clock = clock
        self._monotonic = monotonic
        self._demand: dict[int, Demand] = {}
        self._demand_of: tuple[HoldingsBook, int, tuple[ActiveContract, ...]] | None = None
        self._denials: dict[int, Denial] = {}
        self._held: dict[int, float] = {}
        self._on_refusal: Callable[[Refusal], None] | None = None
        self._delayed: set[int] = set()
        self._burst: tuple[float, int, str] | None = None
        self._limit = LineLimit(
            configured=settings.max_lines,
            reserve=settings.reserved_lines,
            wait=PROBE_WAIT,
        )

    @property
    def held(self) -> frozenset[int]:
        """The conids that hold a line."""
        return frozenset(self._held)

    @property
    def in_use(self) -> int:
        """The number of lines held here."""
        return len(self._held)

    @property
    def limit(self) -> int:
        """The number of lines of the login, as configured, or as learned from code 101."""
        return self._limit.lines

    def needs_allocation(
        self, lines: MarketDataLines, book: HoldingsBook, legs: Iterable[ActiveContract]
    ) -> bool:
        """Return whether other lines are due than those held: a hold, a denial or a wait ended."""
        now = self._monotonic()
        self._log_burst(now)
        before, self._limit = self.limit, self._limit.probed(lines.in_use, now)
        if self.limit > before:
            logger.info("up to %d lines are requested now, up to %d before", self.limit, before)
        self._update_demand(book, legs)
        return self._choose(lines) != self._held.keys() or bool(self._due_for_live())

    def planned(
        self, connection: GatewayConnection, legs: Iterable[ActiveContract]
    ) -> frozenset[int]:
        """Return the conids that are to hold a line, as far as is known before one is requested."""
        self._update_demand(connection.feed.book, legs)
        return self._choose(connection.lines)

    async def allocate(
        self, connection: GatewayConnection, legs: Iterable[ActiveContract]
    ) -> frozenset[int]:
        """Subscribe and cancel lines as the allocation chooses.

        Returns:
            The conids that hold a line afterwards.
        """
        lines, book = connection.lines, connection.feed.book
        requested = self.planned(connection, legs)
        details = await self._contracts.details(connection, requested)
        self._update_demand(book, legs)  # a leg may turn out to be another contract
        for conid in sorted(requested - details.keys() - self._held.keys()):
            self._deny(
                conid,
                GatewayCode.NO_CONTRACT,
                "the gateway gave no contract details",
                delayed=False,
            )
        chosen = self._choose(lines)  # a line may have been refused in the meantime
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
        return self.held

    def renew(self, lines: MarketDataLines, conids: Iterable[int]) -> None:
        """Cancel lines that seem dead, and request them again with new ids."""
        for conid in conids:
            if conid in self._held:
                delayed = conid in self._delayed
                lines.switch(conid, market_data_type=MarketDataType.DELAYED if delayed else None)

    def refused(self, refusal: Refusal, lines: MarketDataLines) -> None:
        """Record a refusal: the login has fewer lines, or a conid has no market data."""
        if not self._drop(refusal.conid):
            return
        self._on_ended(refusal.conid, f"{refusal.code} {refusal.text}")
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
        """Return, in brackets, the reason for the route of a conid's holdings."""
        denial = self._denied(conid)
        denied = None
        if denial is not None:
            denied = f"{'delayed data' if denial.delayed else 'no market data'}: {denial.reason}"
        text = reason(
            conid, state, wanted=self._demand, lines=self._held, denied=denied, limit=self._limit
        )
        return f" ({text})"

    def problems(self) -> list[str]:
        """Return which active conids have no live data, why, and until when; the first few."""
        found = [(c, d) for c in self._demand if (d := self._denied(c)) is not None]
        texts = self._contracts.mismatches
        for conid, denial in sorted(found, key=lambda pair: (pair[1].delayed, pair[0])):
            has = "streams delayed data" if denial.delayed else "has no market data"
            wait = timedelta(seconds=denial.until - self._monotonic())
            again = f"{self._clock() + wait:%H:%M} UTC"
            texts.append(f"{conid} {has}: {denial.reason} (requested again at {again})")
        return texts[:3] + ([f"and {len(texts) - 3} more"] if len(texts) > 3 else [])

    def attach(self, lines: MarketDataLines) -> None:
        """Start on a new connection; the lines and denials ended with the one before.

        Other data may be permitted after a login. The number of lines stays the same.
        """
        self._held, self._delayed, self._denials = {}, set(), {}
        self._on_refusal = partial(self.refused, lines=lines)
        lines.on_refusal.append(self._on_refusal)

    def detach(self, lines: MarketDataLines) -> None:
        """Free the lines held here; a line that another streamer shares stays subscribed."""
        for conid in list(self._held):
            self._drop(conid)
            lines.cancel(conid)
        if self._on_refusal is not None:
            lines.on_refusal.remove(self._on_refusal)
            self._on_refusal = None

    def _update_demand(self, book: HoldingsBook, legs: Iterable[ActiveContract]) -> None:
        """Find the demands anew, if a holding was opened or closed or a leg has changed."""
        matching = self._contracts.matching(legs)
        before = self._demand_of
        if before is not None and before[:2] == (book, book.index.moves) and before[2] is matching:
            return
        found = demands(book.of_conid, matching, sec_types=self._settings.sec_types)
        self._demand = {demand.conid: demand for demand in found}
        self._demand_of = (book, book.index.moves, matching)

    def _choose(self, lines: MarketDataLines) -> frozenset[int]:
        denied = {c for c in self._denials if (d := self._denied(c)) is not None and not d.delayed}
        others = max(0, lines.in_use - len(self._held))  # held by other streamers of this process
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
        """Return the lines with delayed data for which live data may be requested again."""
        return sorted(conid for conid in self._delayed if self._denied(conid) is None)

    def _drop(self, conid: int) -> bool:
        self._delayed.discard(conid)
        return self._held.pop(conid, None) is not None

    def _deny(self, conid: int, code: int, reason: str, *, delayed: bool) -> None:
        before = self._denials.get(conid)
        still = self._denied(conid) is not None  # delayed data were refused too
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
