"""The valuation of streamed holdings: events in, rows out, once per flush."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import datetime, timedelta

from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.login_lines import LoginLines
from position_sync_dagster.domain.streamed_holding import Moment, StreamedHolding, StreamRules
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.account_greeks import PublishedGreeks
from position_sync_dagster.sync.stream.contract_cache import ContractCache

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUpdate:
    """An update that was not delivered yet.

    Attributes:
        arrived: When the tick behind it arrived, in Unix seconds; None without a tick.
        holding: What the broker had reported of it when the row was made.
    """

    update: PositionUpdate
    arrived: float | None = None
    holding: BrokerPosition | None = None

    @property
    def key(self) -> Key:
        """(account, conid) of the position."""
        return (self.update.account, self.update.conid)


@dataclass(eq=False, repr=False)
class StreamPricer:
    """Passes events to the streamed holdings, and collects the rows that are due.

    Each holding has one state (`domain.streamed_holding`), and each line one record
    (`domain.line`), which its holdings share.

    Args:
        lines: The records of the lines.
        contracts: The price magnifiers and the trading hours.
        greeks: Computed greeks, for the legs for which the gateway sends none.
        monotonic: The clock of every interval, in seconds.
    """

    lines: LoginLines
    contracts: ContractCache
    _: KW_ONLY
    settings: Settings
    greeks: PublishedGreeks = field(default_factory=PublishedGreeks)
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._rules = StreamRules(
            max_last_age=timedelta(seconds=self.settings.max_last_age_s),
            band=self.settings.value_band,
            heartbeat_s=self.settings.row_interval_s,
            closed_heartbeat_s=max(
                self.settings.row_interval_s, self.settings.monitored_row_interval_s
            ),
        )
        self._holdings: dict[Key, StreamedHolding] = {}
        self._suspects = OutageLog(logger)

    def reset(self) -> None:
        """Forget every holding: a snapshot of the positions comes next."""
        self._holdings = {}

    def mark_due(self, keys: Iterable[Key]) -> None:
        """Value these holdings at the next flush, with or without a tick."""
        for key in keys:
            self._holding(key).due = True

    def is_due(self, key: Key) -> bool:
        """Return whether the holding is to be valued at the next flush."""
        holding = self._holdings.get(key)
        return holding is not None and holding.due

    def add(self, keys: Iterable[Key]) -> None:
        """Value these holdings by their lines from now on.

        A new line has a moment to tick before the first row; one that ticks already has none.
        """
        for key in keys:
            holding = self._holding(key)
            holding.streamed = True
            holding.due |= holding.line.trusted

    def close(self, keys: Iterable[Key]) -> None:
        """Write the zero rows of holdings that were streamed at the next flush."""
        for key in keys:
            holding = self._holding(key)
            holding.streamed, holding.due = False, True

    def leave(self, keys: Iterable[Key]) -> None:
        """Leave holdings to the queue; a row that is due is still written if the line works."""
        for key in keys:
            holding = self._holding(key)
            holding.streamed = False
            if holding.line.refused or not holding.due:
                del self._holdings[key]

    def flush(
        self,
        connection: GatewayConnection,
        ticked: Mapping[int, float],
        *,
        valued: Iterable[Key] = (),
        now: datetime,
        provenance: Provenance,
    ) -> list[PendingUpdate]:
        """Value the holdings that are due, and return the rows worth writing.

        A holding whose account has not been downloaded yet waits: its price factor is checked
        against its portfolio row before its first row is written. So does one whose account is in
        doubt.

        Args:
            ticked: conid → arrival of its first tick since the last flush, in Unix seconds.
            valued: Holdings with a new profit or value by PnLSingle.
        """
        now_s = self.monotonic()
        quotes = {conid: connection.lines.quote(conid) for conid in ticked}
        self.lines.ticked(quotes, connection.lines.quote, now, now_s)
        for key in valued:
            if (state := self._holdings.get(key)) is not None:
                state.due = True
        updates = []
        for key, state in list(self._holdings.items()):
            conid = key[1]
            if conid in ticked:
                state.ticked(ticked[conid])
            if not state.is_due(now_s):
                continue
            holding = connection.feed.get(key)
            if holding is not None and not connection.feed.is_known(holding):
                continue
            if holding is not None:
                arrived = state.arrived
                if conid not in quotes:
                    quotes[conid] = connection.lines.quote(conid)
                computed = self.greeks.of(holding)
                update = state.row(
                    holding if computed is None else replace(holding, greeks=computed),
                    quotes[conid],
                    Moment(now=now, now_s=now_s, hours=self.contracts.hours(conid)),
                    price_magnifier=self.contracts.magnifier(conid),
                    rules=self._rules,
                    by=provenance,
                )
                if update is not None:
                    updates.append(PendingUpdate(update=update, arrived=arrived, holding=holding))
            if holding is None or not (state.streamed or state.due):
                del self._holdings[key]
        self._log_suspects()
        return updates

    def _holding(self, key: Key) -> StreamedHolding:
        state = self._holdings.get(key)
        if state is None:
            line = self.lines.line(key[1])
            state = self._holdings[key] = StreamedHolding(key=key, line=line)
        return state

    def _log_suspects(self) -> None:
        """Log once per outage that lines are requested again."""
        reasons = self.lines.suspect_reasons()
        if reasons:
            text = "; ".join(self.lines.problems())
            self._suspects.report("; ".join(reasons), text=text, level=logging.WARNING)
        else:
            self._suspects.clear()
