"""Which streamed holdings are due for a new row, and the rows themselves."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from position_sync_dagster.domain.broker import BrokerPosition
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.domain.valuation import Provenance, factor_agrees, revalue
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.contracts import Contracts
from position_sync_dagster.sync.mailbox import Letter

FIRST_TICK_GRACE_S = 5.0
"""A leg whose line is silent this long is valued by its portfolio row meanwhile."""


class Revaluer:
    """Collect what ticked or changed, and value it once per flush."""

    def __init__(self, contracts: Contracts, *, settings: Settings) -> None:
        self._contracts = contracts
        self._max_mark_age = timedelta(seconds=settings.max_mark_age_s)
        self._due: dict[Key, float | None] = {}
        self._silent: dict[Key, datetime] = {}

    def forget(self) -> None:
        """Start anew on a new connection."""
        self._due, self._silent = {}, {}

    def mark(self, keys: Iterable[Key]) -> None:
        """Have the holdings valued at the next flush, tick or not."""
        for key in keys:
            self._due.setdefault(key, None)

    def await_tick(self, keys: Iterable[Key], *, since: datetime) -> None:
        """Give the new lines of these holdings a moment to tick before anything is written."""
        for key in keys:
            self._silent[key] = since

    def flush(
        self,
        connection: GatewayConnection,
        ticked: Mapping[int, float],
        routes: Mapping[Key, LegState],
        *,
        now: datetime,
        by: Provenance,
    ) -> list[Letter]:
        """Value what is due.

        A holding whose account has not been walked yet waits, since its factor is checked against
        its portfolio row before its first row.

        Args:
            ticked: conid → arrival of its first tick since the last flush, in Unix seconds.
        """
        self._take_ticks(ticked, routes, now)
        due = {k: at for k, at in self._due.items() if k[0] in connection.feed.walked}
        self._due = {k: at for k, at in self._due.items() if k not in due}
        letters = []
        for key, arrived in due.items():
            holding = connection.feed.get(key)
            waits = arrived is None and key in self._silent
            if holding is None or (waits and holding.position):
                continue
            update = revalue(
                holding,
                connection.lines.quote(key[1]),
                price_magnifier=self._magnifier(holding),
                now=now,
                max_mark_age=self._max_mark_age,
                by=by,
            )
            letters.append(Letter(update=update, arrived=arrived))
        return letters

    def _take_ticks(
        self, ticked: Mapping[int, float], routes: Mapping[Key, LegState], now: datetime
    ) -> None:
        self._silent = {k: at for k, at in self._silent.items() if k in routes}
        for key, state in routes.items():
            arrived = ticked.get(key[1])
            if arrived is not None and state is LegState.STREAMED:
                self._due[key] = arrived
                self._silent.pop(key, None)
        for key, since in list(self._silent.items()):
            if now - since >= timedelta(seconds=FIRST_TICK_GRACE_S):
                self._due.setdefault(key, None)
                del self._silent[key]

    def _magnifier(self, holding: BrokerPosition) -> int | None:
        """Give the price magnifier, or None where the broker's own value contradicts it."""
        magnifier = self._contracts.magnifier(holding.instrument.conid)
        if magnifier is None or factor_agrees(holding, price_magnifier=magnifier) is False:
            return None
        return magnifier
