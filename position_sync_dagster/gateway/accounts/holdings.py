"""The book of holdings: what the broker last reported of each, merged from its three feeds."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness
from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.domain.update import ValueOrigin
from position_sync_dagster.gateway.accounts.holding_index import HoldingIndex
from position_sync_dagster.gateway.accounts.merging import closed, with_exchange, with_pnl
from position_sync_dagster.gateway.changes import ChangeNotifier, PendingChanges
from position_sync_dagster.gateway.ib_async_internals.holdings import PnlFields
from position_sync_dagster.gateway.translate import PortfolioValues, known


class HoldingsBook:
    """Every holding of the login, merged from position, portfolio and PnLSingle messages.

    A holding that is closed stays in the book with a position of 0.0.

    Args:
        gateway_id: "host:port" of the gateway.
        accounts: The accounts of the login.
        clock: The time of receipt.

    Attributes:
        snapshot_id: The id of the newest whole list of positions.
        completeness: How much of each account the broker has confirmed.
        online: Whether the gateway has IB; what it sends without IB confirms nothing.
        index: The holdings by conid and by account.
    """

    def __init__(self, gateway_id: str, accounts: Iterable[str], *, clock: Clock) -> None:
        self.snapshot_id = ""
        self.completeness = dict.fromkeys(accounts, Completeness.UNKNOWN)
        self._gateway_id = gateway_id
        self._clock = clock
        self._holdings: dict[Key, BrokerPosition] = {}
        self.online = True
        self._confirmed: dict[str, datetime] = {}
        self._row_confirmed: dict[Key, datetime] = {}
        self._sent: dict[Key, tuple[datetime, PnlFields]] = {}
        self._changes: ChangeNotifier[Key, datetime] = ChangeNotifier()
        self._all_changes: ChangeNotifier[Key, None] = ChangeNotifier()
        self.index = HoldingIndex()

    @property
    def holdings(self) -> tuple[BrokerPosition, ...]:
        """Return every holding, closed ones with a position of 0.0."""
        return tuple(holding for key in self._holdings if (holding := self.get(key)) is not None)

    @property
    def is_complete(self) -> bool:
        """Return whether the positions and the values of every account arrived whole."""
        return set(self.completeness.values()) == {Completeness.COMPLETE}

    def get(self, key: Key) -> BrokerPosition | None:
        """Return one holding."""
        holding = self._merged(key)
        if holding is not None:
            holding = self._holdings[key] = self._with_confirmation(holding)
        return holding

    def position(self, key: Key) -> float | None:
        """Return the quantity of a holding."""
        holding = self._holdings.get(key)
        return holding.position if holding is not None else None

    def reported(self, keys: Iterable[Key] | None = None) -> list[BrokerPosition]:
        """Return holdings, by default all, without what was confirmed of their account since."""
        found = (self._merged(key) for key in (self._holdings if keys is None else keys))
        return [self._with_confirmation(holding, newer=False) for holding in found if holding]

    def watch(self) -> PendingChanges[Key, datetime]:
        """Collect from now on which holdings change, and when; a changed quantity is urgent."""
        return self._changes.watch()

    def watch_all(self) -> PendingChanges[Key, None]:
        """Collect from now on which holdings change in any way, except by `confirm`."""
        return self._all_changes.watch()

    def of_conid(self, conid: int) -> Iterable[BrokerPosition]:
        """Return the holdings of a conid."""
        found = (self._merged(key) for key in self.index.keys_of(conid))
        return [holding for holding in found if holding is not None]

    def confirmed_at(self, account: str) -> datetime | None:
        """Return when the broker last confirmed every holding of an account."""
        return self._confirmed.get(account)

    def remember(self, holdings: Iterable[BrokerPosition]) -> None:
        """Add what an earlier connection knew, so that a close in the meantime is noticed."""
        for holding in holdings:
            if holding.key not in self._holdings:
                unknown = replace(holding, completeness=Completeness.UNKNOWN, confirmed_at=None)
                self._store(holding.key, unknown)

    def put_position(
        self, account: str, instrument: Instrument, position: float, cost: float | None
    ) -> None:
        """Merge a position row, which has no values."""
        key = (account, instrument.conid)
        before = self._merged(key)
        if position == 0:
            if before is not None and before.position:
                self._close(before)
            return
        now = self._clock()
        if before is not None and before.position == position:
            found = replace(
                before,
                instrument=with_exchange(instrument, before),
                average_cost=cost if cost is not None else before.average_cost,
                snapshot_id=self.snapshot_id,
            )
            self._store(key, found)
            return
        self.put(
            BrokerPosition(
                gateway_id=self._gateway_id,
                account=account,
                instrument=with_exchange(instrument, before),
                position=position,
                average_cost=cost,
                received_at=now,
                position_time=now,
                snapshot_id=self.snapshot_id,
            ),
        )

    def put_portfolio(
        self, account: str, instrument: Instrument, position: float, values: PortfolioValues
    ) -> None:
        """Merge a portfolio row; a closed holding that was never held here is left out."""
        key = (account, instrument.conid)
        before = self._merged(key)
        if before is None and position == 0:
            return
        now = self._clock()
        self._confirm_row(key, now)
        same = before is not None and before.position == position
        self.put(
            BrokerPosition(
                gateway_id=self._gateway_id,
                account=account,
                instrument=with_exchange(instrument, before),
                position=position,
                value_time=None,
                received_at=now,
                position_time=before.position_time if before and same else now,
                snapshot_id=self.snapshot_id,
                daily_pnl=before.daily_pnl if before else None,
                value_source=(
                    ValueOrigin.NONE if values["market_value"] is None else ValueOrigin.PORTFOLIO
                ),
                completeness=self._completeness_of(account),
                confirmed_at=self._confirmation_of(key),
                **values,
            ),
        )

    def put_pnl(self, key: Key, sent: PnlFields) -> bool:
        """Merge a PnLSingle message.

        It becomes a part of the holding when somebody asks for that: one comes each second, and is
        looked at every other time.

        Returns:
            Whether it has a value, of the quantity that is held; others are left out.
        """
        holding = self._holdings.get(key)
        if holding is None or holding.position != sent.position or not sent.position:
            return False
        if known(sent.value) is None:
            return False
        now = self._clock()
        self._confirm_row(key, now)
        before = self._sent.get(key)
        if before is not None and known(sent.realized) is None:
            realized = before[1].realized
            sent = sent if known(realized) is None else sent._replace(realized=realized)
        self._sent[key] = (now, sent)
        self._all_changes.note(key, None)
        return True

    def _merged(self, key: Key) -> BrokerPosition | None:
        """Return a holding, with the newest of its PnLSingle messages."""
        holding, newest = self._holdings.get(key), self._sent.pop(key, None)
        if holding is None or newest is None:
            return holding
        merged = self._holdings[key] = with_pnl(
            holding,
            newest[1],
            received_at=newest[0],
            completeness=self._completeness_of(key[0]),
            confirmed_at=self._confirmation_of(key),
        )
        return merged

    def clear_daily_pnl(self, key: Key) -> None:
        """Remove the daily profit of a holding: its PnLSingle subscription ended."""
        holding = self._merged(key)
        if holding is not None and holding.daily_pnl is not None:
            self._store(key, replace(holding, daily_pnl=None))

    def set_value_time(self, key: Key, value_time: datetime | None) -> None:
        """Set the broker's own time of the values of a holding."""
        holding = self._merged(key)
        if holding is not None:
            self._store(key, replace(holding, value_time=value_time))

    def close_absent(self, reported: Collection[Key]) -> None:
        """Close every holding that a whole list of positions does not name."""
        for key, holding in list(self._holdings.items()):
            if key not in reported and holding.position:
                self._close(self._merged(key) or holding)

    def set_completeness(self, account: str, completeness: Completeness) -> None:
        """Set in each row of an account how much of it the broker has sent."""
        self.completeness[account] = completeness

    def confirm(self, account: str, at: datetime | None = None) -> None:
        """Record that the broker confirmed every holding of an account.

        Call it for a received message alone: the end of a download, or a later row or time of a
        subscription whose download ended. The gateway sends only what changed then, so each
        message confirms the rest. Source: IB, "Account Updates".

        Args:
            account: The account.
            at: When the message arrived; by default now. An earlier one than the newest is ignored.
        """
        newest = self._confirmed.get(account)
        if self.online and (at is None or newest is None or at > newest):
            self._confirmed[account] = at or self._clock()

    def invalidate(self) -> None:
        """Mark every account as UNKNOWN and unconfirmed."""
        self._confirmed.clear()
        self._row_confirmed.clear()
        for account in self.completeness:
            self.set_completeness(account, Completeness.UNKNOWN)
        for key, holding in self._holdings.items():
            self._holdings[key] = self._with_confirmation(holding)
            self._all_changes.note(key, None)

    def put(self, holding: BrokerPosition) -> None:
        """Replace a holding and notify the watchers."""
        key = holding.key
        before = self._holdings.get(key)
        moved = before is None or before.position != holding.position
        self._store(key, self._with_confirmation(holding))
        self._changes.note(key, holding.received_at, urgent=moved)

    def _store(self, key: Key, holding: BrokerPosition) -> None:
        self.index.put(self._holdings.get(key), holding)
        self._sent.pop(key, None)
        self._holdings[key] = holding
        self._all_changes.note(key, None)

    def _close(self, holding: BrokerPosition) -> None:
        self.put(closed(holding, at=self._clock(), snapshot_id=self.snapshot_id))

    def _confirm_row(self, key: Key, at: datetime) -> None:
        if self.online:
            self._row_confirmed[key] = at

    def _with_confirmation(self, holding: BrokerPosition, newer: bool = True) -> BrokerPosition:
        """Return a holding with what is known of its account and of itself.

        Without `newer`, an older confirmation stays. A newer one than is known, from before the
        clock was set back, never does.
        """
        completeness = self._completeness_of(holding.account)
        confirmed_at, before = self._confirmation_of(holding.key), holding.confirmed_at
        older = before is None or (confirmed_at is not None and before < confirmed_at)
        same = before == confirmed_at or (older and not newer)
        if same and holding.completeness is completeness:
            return holding
        return replace(holding, completeness=completeness, confirmed_at=confirmed_at)

    def _completeness_of(self, account: str) -> Completeness:
        return self.completeness.get(account, Completeness.UNKNOWN)

    def _confirmation_of(self, key: Key) -> datetime | None:
        of_account = self._confirmed.get(key[0])
        of_row = self._row_confirmed.get(key)
        if of_account is None or of_row is None:
            return of_account or of_row
        return max(of_account, of_row)
