"""Who holds a line now: the allocation, put into effect on a connection."""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from position_sync_dagster.domain.broker import BrokerPosition
from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.routing import Demand, allocate_lines, demands
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.lines import TOO_MANY_LINES, MarketDataLines, Refusal
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.contracts import Contracts

logger = logging.getLogger(__name__)

BARRED_S = {10197: 60.0, 10182: 30.0, 200: 3600.0}
BARRED_OTHERWISE_S = 1800.0
"""When a conid that was refused is asked for again: a competing session (10197) and a farm outage
(10182) pass, a missing subscription rarely does."""

NOT_PERMITTED = frozenset({354, 10089, 10168, 10197})
"""Codes after which delayed data may still be had."""

DELAYED = 3

PROBE_S, LONGEST_PROBE_S = 60.0, 900.0
PROBE_STEP = 5
"""A limit learned from code 101 is probed upwards by this many lines, ever more rarely."""


class Barred(NamedTuple):
    """A conid without market data: until when it is not asked for, and why."""

    until: datetime
    why: str


class LineKeeper:
    """Hold the lines that the allocation chooses, and learn what the gateway refuses.

    Attributes:
        limit: Lines of the login, as configured, or as the gateway showed by code 101.
    """

    def __init__(self, contracts: Contracts, *, settings: Settings, clock: Clock) -> None:
        self._contracts = contracts
        self._settings = settings
        self._clock = clock
        self._barred: dict[int, Barred] = {}
        self._delayed: set[int] = set()
        self._held: dict[int, datetime] = {}
        self._probe_at: datetime | None = None
        self._probe_s = PROBE_S
        self.limit = settings.max_lines

    @property
    def in_use(self) -> int:
        """Count the lines held here."""
        return len(self._held)

    def stale(
        self,
        lines: MarketDataLines,
        holdings: Iterable[BrokerPosition],
        legs: Iterable[ActiveContract],
    ) -> bool:
        """Tell whether time alone changes the allocation: a hold or a bar ended, a probe is due."""
        now = self._clock()
        if self._probe_at is not None and now >= self._probe_at:
            self.limit = min(self._settings.max_lines, self.limit + PROBE_STEP)
            short = self.limit < self._settings.max_lines
            self._probe_at = now + timedelta(seconds=self._probe_s) if short else None
        self._barred = {c: barred for c, barred in self._barred.items() if barred.until > now}
        wanted = {demand.conid for demand in self._demands(holdings, legs)}
        budget = max(0, self._limit_here(lines) - self._settings.reserved_lines)
        return bool(self._held.keys() - wanted) or len(self._held) != min(len(wanted), budget)

    async def allocate(
        self,
        connection: GatewayConnection,
        holdings: Iterable[BrokerPosition],
        legs: Iterable[ActiveContract],
    ) -> frozenset[int]:
        """Take and free lines; give the conids that hold one afterwards."""
        lines, now = connection.lines, self._clock()
        chosen = allocate_lines(
            self._demands(holdings, legs),
            self._held,
            limit=self._limit_here(lines),
            reserve=self._settings.reserved_lines,
            now=now,
            min_hold=timedelta(seconds=self._settings.min_hold_s),
        )
        details = await self._contracts.details(connection, chosen)
        for conid in self._held.keys() - chosen:
            del self._held[conid]
            lines.cancel(conid)
        for conid in sorted(chosen - self._held.keys()):
            if conid in details:
                lines.subscribe(
                    details[conid], market_data_type=DELAYED if conid in self._delayed else None
                )
                self._held[conid] = now
            else:
                self._bar(conid, "the gateway gave no contract details", BARRED_S[200])
        return frozenset(self._held)

    def refused(self, refusal: Refusal, lines: MarketDataLines) -> None:
        """Learn from a refusal: the number of lines, or that a conid has no market data."""
        if self._held.pop(refusal.conid, None) is None:
            return
        if refusal.code == TOO_MANY_LINES:
            if self._probe_at is not None:
                self._probe_s = min(LONGEST_PROBE_S, 2 * self._probe_s)
            self.limit = lines.in_use
            self._probe_at = self._clock() + timedelta(seconds=self._probe_s)
            logger.warning("the gateway gives %d lines: %s", lines.in_use, refusal.text)
        elif (
            refusal.code in NOT_PERMITTED
            and self._settings.delayed_fallback
            and refusal.conid not in self._delayed
        ):
            self._delayed.add(refusal.conid)
            logger.warning("conid %d streams delayed data: %s", refusal.conid, refusal.text)
        else:
            self._delayed.discard(refusal.conid)
            wait_s = BARRED_S.get(refusal.code, BARRED_OTHERWISE_S)
            self._bar(refusal.conid, f"{refusal.code} {refusal.text}", wait_s)

    def why(self, conid: int) -> str:
        """Say why an active conid holds no line."""
        barred = self._barred.get(conid)
        return f" ({barred.why})" if barred else " (no line is free)"

    def complaints(self) -> list[str]:
        """Say which conids have no market data, and why; the first few of them."""
        said = [f"{conid} has no market data: {b.why}" for conid, b in self._barred.items()]
        return said[:3] + ([f"and {len(said) - 3} more"] if len(said) > 3 else [])

    def release(self, lines: MarketDataLines) -> None:
        """Free the lines held here; those that another streamer shares stay."""
        for conid in self._held:
            lines.cancel(conid)
        self._held = {}

    def forget(self) -> None:
        """Start anew on a new connection: the old one's lines ended with it."""
        self._held = {}

    def _limit_here(self, lines: MarketDataLines) -> int:
        """Leave out the lines that others of this process hold on the same connection."""
        return self.limit - (lines.in_use - len(self._held))

    def _demands(
        self, holdings: Iterable[BrokerPosition], legs: Iterable[ActiveContract]
    ) -> list[Demand]:
        return demands(holdings, legs, sec_types=self._settings.sec_types, barred=self._barred)

    def _bar(self, conid: int, why: str, wait_s: float) -> None:
        self._barred[conid] = Barred(self._clock() + timedelta(seconds=wait_s), why)
        logger.warning("conid %d has no market data, it is queued instead: %s", conid, why)
