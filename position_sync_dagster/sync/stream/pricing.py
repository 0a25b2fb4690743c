"""Values what changed of the streamed holdings, once per flush."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from position_sync_dagster.domain.holding import BrokerPosition, Key
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.login_lines import LoginLines
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.domain.valuation import Moment, StreamedHolding, StreamRules
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.sync.stream.contracts import ContractCache
from position_sync_dagster.sync.stream.model_greeks import PublishedGreeks
from position_sync_dagster.sync.stream.ownership import OwnerContext


@dataclass(eq=False, repr=False)
class StreamPricer:
    """Passes events to the streamed holdings, and collects the rows that are due.

    Each holding has one state (`domain.valuation`), and each line one record
    (`domain.login_lines`), which its holdings share.

    Args:
        lines: The records of the lines.
        contracts: The price magnifiers and the trading hours.
        greeks: Computed greeks, for the legs for which the gateway sends none.
    """

    context: OwnerContext
    lines: LoginLines
    contracts: ContractCache
    greeks: PublishedGreeks = field(default_factory=PublishedGreeks)

    def __post_init__(self) -> None:
        settings = self.context.settings
        self._rules = StreamRules(
            max_last_age=timedelta(seconds=settings.max_last_age_s),
            band=settings.value_band,
            heartbeat_s=settings.row_interval_s,
            closed_heartbeat_s=max(settings.row_interval_s, settings.monitored_row_interval_s),
        )
        self._holdings: dict[Key, StreamedHolding] = {}

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

    def reroute(self, key: Key, before: LegState | None, state: LegState) -> None:
        """Value a holding by its line from now on, or end that.

        A new line has a moment to tick before the first row is due; with a line that already ticks,
        the row is due at once. The stream writes the zero row of a holding that it streamed,
        whenever it closed. A holding that is left to the queue still has a row that is due, if the
        line works.
        """
        if LegState.STREAMED not in (before, state):
            return
        holding = self._holding(key)
        holding.streamed = state is LegState.STREAMED
        if holding.streamed:
            holding.due |= holding.line.trusted
        elif state is LegState.CLOSED:
            holding.due = True
        elif holding.line.refused or not holding.due:
            del self._holdings[key]

    def flush(
        self, connection: GatewayConnection, ticked: Collection[int], valued: Iterable[Key] = ()
    ) -> list[tuple[PositionUpdate, BrokerPosition]]:
        """Value the holdings that are due; return the rows worth writing, each with its holding.

        A holding whose account has not been downloaded yet waits: its price factor is checked
        against its portfolio row before its first row is written. A holding whose account is in
        doubt also waits.

        Args:
            ticked: The contracts that ticked since the last flush.
            valued: Holdings with a new profit or value by PnLSingle.
        """
        now, now_s = self.context.clock(), self.context.monotonic()
        quotes = {conid: connection.lines.quote(conid) for conid in ticked}
        self.lines.ticked(quotes, now, now_s)
        for key in valued:
            if (state := self._holdings.get(key)) is not None:
                state.due = True
        updates = []
        for key, state in list(self._holdings.items()):
            conid = key[1]
            if conid in ticked:
                state.ticked()
            if not state.is_due(now_s):
                continue
            holding = connection.feed.get(key)
            if holding is None:
                del self._holdings[key]
                continue
            if not connection.feed.is_known(holding):
                continue
            at = Moment(
                now=now,
                now_s=now_s,
                by=self.context.lease.provenance,
                hours=self.contracts.hours(conid),
                price_magnifier=self.contracts.magnifier(conid),
            )
            quote = quotes[conid] if conid in quotes else connection.lines.quote(conid)
            update = state.row(self.greeks.added_to(holding), quote, at)
            if update is not None:
                updates.append((update, holding))
            if not (state.streamed or state.due):
                del self._holdings[key]
        return updates

    def _holding(self, key: Key) -> StreamedHolding:
        state = self._holdings.get(key)
        if state is None:
            line = self.lines.line(key[1])
            state = self._holdings[key] = StreamedHolding(key=key, line=line, rules=self._rules)
        return state
