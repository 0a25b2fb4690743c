"""Who holds a line now: the allocation, put into effect on a connection."""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta

from position_sync_dagster.domain.broker import BrokerPosition
from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.routing import Demand, allocate_lines, demands
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.lines import TOO_MANY_LINES, MarketDataLines, Refusal
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.contracts import Contracts

logger = logging.getLogger(__name__)

BARRED_S = 300.0
"""A conid whose market data was refused is asked for again after this."""

PROBE_S = 600.0
"""A limit learned from code 101 is probed upwards after this."""


class LineKeeper:
    """Hold the lines that the allocation chooses, and learn what the gateway refuses.

    Attributes:
        limit: Lines of the login, as configured, or as the gateway showed by code 101.
    """

    def __init__(self, contracts: Contracts, *, settings: Settings, clock: Clock) -> None:
        self._contracts = contracts
        self._settings = settings
        self._clock = clock
        self._barred: dict[int, datetime] = {}
        self._held: dict[int, datetime] = {}
        self._learned_at: datetime | None = None
        self.limit = settings.max_lines

    def stale(
        self,
        lines: MarketDataLines,
        holdings: Iterable[BrokerPosition],
        legs: Iterable[ActiveContract],
    ) -> bool:
        """Tell whether time alone changes the allocation: a hold or a bar ended, a probe is due."""
        now = self._clock()
        if self._learned_at is not None and now - self._learned_at > timedelta(seconds=PROBE_S):
            self.limit, self._learned_at = self._settings.max_lines, None
        self._barred = {conid: until for conid, until in self._barred.items() if until > now}
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
                lines.subscribe(details[conid])
                self._held[conid] = now
            else:
                self._bar(conid, "the gateway gave no contract details")
        return frozenset(self._held)

    def refused(self, refusal: Refusal, lines: MarketDataLines) -> None:
        """Learn from a refusal: the number of lines, or that a conid has no market data."""
        if self._held.pop(refusal.conid, None) is None:
            return
        if refusal.code == TOO_MANY_LINES:
            self.limit = lines.in_use + self._settings.reserved_lines
            self._learned_at = self._clock()
            logger.warning("the gateway gives %d lines: %s", lines.in_use, refusal.text)
        else:
            self._bar(refusal.conid, f"{refusal.code} {refusal.text}")

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

    def _bar(self, conid: int, why: str) -> None:
        self._barred[conid] = self._clock() + timedelta(seconds=BARRED_S)
        logger.warning("conid %d has no market data, it is queued instead: %s", conid, why)
