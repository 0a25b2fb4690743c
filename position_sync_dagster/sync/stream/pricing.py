"""Values what changed of the streamed holdings, once per flush.

An error in the step of one holding sets that holding aside, by name; the others are valued.
"""

import logging
from collections.abc import Collection, Iterable, Set
from contextlib import suppress
from dataclasses import dataclass

from position_sync_dagster.domain.holding import BrokerPosition, Key
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.login_lines import LoginLines
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.streamed_holding import StreamedHolding
from position_sync_dagster.domain.valuation import Moment
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.sync.stream.contracts import ContractCache
from position_sync_dagster.sync.stream.ownership import Ownership
from position_sync_dagster.sync.stream.parts import PublishedGreeks

logger = logging.getLogger(__name__)

# Seconds before a holding is valued again after an error in its step.
VALUED_AGAIN_S = 30.0


# The rows that are due, each with the holding that it values.
ValuedRows = list[tuple[PositionUpdate, BrokerPosition]]


class Failure:
    """The error of a holding that is set aside (`outage`), and when it is valued again."""

    def __init__(self) -> None:
        self.outage = OutageLog(logger)
        self.again_at_s = 0.0


@dataclass(eq=False, repr=False)
class StreamPricer:
    """Passes events to the streamed holdings, and collects the rows that are due.

    Each holding has one state (`domain/streamed_holding.py`), and each line one record in the set
    of lines, which its holdings share. A step of a holding returns its row and what it learned of
    the line; that is recorded in the set before the next holding is valued.

    Args:
        lines: The set of the lines.
        contracts: The price magnifiers and the trading hours.
        greeks: Computed greeks, for the legs for which the gateway sends none.
    """

    ownership: Ownership
    lines: LoginLines
    contracts: ContractCache
    greeks: PublishedGreeks

    def __post_init__(self) -> None:
        # The streamed holdings, and those with a last row that is due.
        self._holdings: dict[Key, StreamedHolding] = {}
        self._failures: dict[Key, Failure] = {}  # of the holdings that are set aside

    @property
    def set_aside(self) -> dict[Key, str]:
        """Return the holdings that an error sets aside, each with the reason."""
        return {key: failure.outage.fault or "" for key, failure in self._failures.items()}

    def reset(self) -> None:
        """Forget every holding: a snapshot of the positions comes next."""
        self._holdings = {}
        self._failures = {}

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

        self._failures.pop(key, None)
        holding = self._holding(key)
        line = self.lines.line(key[1])
        holding.streamed = state is LegState.STREAMED
        if holding.streamed:
            holding.due |= line.trusted
        elif state is LegState.CLOSED:
            holding.due = True
        elif line.refused or not holding.due:
            del self._holdings[key]

    def flush(
        self,
        connection: GatewayConnection,
        ticked: Collection[int],
        valued: Set[Key] = frozenset(),
    ) -> ValuedRows:
        """Value the holdings that are due; return the rows worth writing, each with its holding.

        A holding whose account has not been downloaded yet waits: the unit of its prices, cents or
        not, is checked against its portfolio row before its first row is written. A holding whose
        account is in doubt also waits.

        Args:
            ticked: The contracts that ticked since the last flush.
            valued: Holdings with a new profit or value by PnLSingle.
        """
        for key in valued & self._holdings.keys():
            self._holdings[key].due = True
        self._note_ticks(ticked)
        return self._value_due(connection, ticked, list(self._holdings.values()))

    def value_ticked(self, connection: GatewayConnection, ticked: Collection[int]) -> ValuedRows:
        """Value the holdings that ticked before the flush, for handlers that get each tick at once.

        Returns:
            The rows worth writing, each with its holding.
        """
        return self._value_due(connection, ticked, self._note_ticks(ticked))

    def _note_ticks(self, ticked: Collection[int]) -> list[StreamedHolding]:
        """Make the holdings due that ticked, and return them."""
        states = [state for key, state in self._holdings.items() if key[1] in ticked]
        for state in states:
            state.ticked()
        return states

    def _value_due(
        self,
        connection: GatewayConnection,
        ticked: Collection[int],
        states: Iterable[StreamedHolding],
    ) -> ValuedRows:
        """Value those that are due, once their lines have the ticks; set aside those that fail."""
        now = self.ownership.clock()
        now_s = self.ownership.monotonic()
        quotes = {}
        for conid in ticked:
            with suppress(Exception):  # its holdings read it again, and are set aside by name
                quotes[conid] = connection.lines.quote(conid)
        self.lines.ticked(quotes, now_s)

        rows = []
        for state in states:
            if not self._is_due_now(state, now_s):
                continue

            conid = state.key[1]
            at = Moment(
                now=now,
                now_s=now_s,
                by=self.ownership.provenance,
                hours=self.contracts.hours(conid),
                price_magnifier=self.contracts.magnifier(conid),
            )
            try:
                quote = quotes[conid] if conid in quotes else connection.lines.quote(conid)
                row = self._value(connection, state, quote, at)
            except Exception as error:  # noqa: BLE001 - one holding must not end the others
                self._set_aside(state, error, now_s)
                continue

            self._failures.pop(state.key, None)
            if row is not None:
                rows.append(row)
        return rows

    def _is_due_now(self, state: StreamedHolding, now_s: float) -> bool:
        """Return whether a holding is due, and is not set aside for a while."""
        failure = self._failures.get(state.key)
        if failure is not None and now_s < failure.again_at_s:
            return False
        return state.is_due(self.lines.line(state.key[1]), now_s)

    def _value(
        self,
        connection: GatewayConnection,
        state: StreamedHolding,
        quote: Quote | None,
        at: Moment,
    ) -> tuple[PositionUpdate, BrokerPosition] | None:
        """Make the step of a holding that is due; return its row, if it is worth writing.

        A holding that is not in the book any more is forgotten. One whose account is not known yet
        waits.
        """
        key = state.key
        conid = key[1]
        holding = connection.feed.book.get(key, self.greeks)
        if holding is None:
            del self._holdings[key]
            return None
        if not connection.feed.is_known(holding):
            return None

        line = self.lines.line(conid)
        row, line = state.step(holding, quote, line, at)
        self.lines.put(conid, line)
        if not (state.streamed or state.due):  # that was its last row: the queue has it now
            del self._holdings[key]
        return None if row is None else (row, holding)

    def _set_aside(self, state: StreamedHolding, error: Exception, now_s: float) -> None:
        """Record why a holding cannot be valued, and value it again after `VALUED_AGAIN_S`.

        Its row in the ledger stays as it is, and the session names it (`set_aside`).
        """
        account, conid = state.key
        failure = self._failures.setdefault(state.key, Failure())
        why = f"it cannot be valued: {type(error).__name__}: {error}"
        text = f"conid {conid} of {account} is set aside: {why}"
        failure.outage.report(why, text=text, error=error)
        failure.again_at_s = now_s + VALUED_AGAIN_S
        state.due = True

    def _holding(self, key: Key) -> StreamedHolding:
        return self._holdings.setdefault(key, StreamedHolding(key=key))
