"""How a holding follows from the one before and a message, and what the broker has confirmed."""

from collections.abc import Container, Iterable
from dataclasses import replace
from datetime import datetime

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness, Key
from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.update import ValueOrigin
from position_sync_dagster.gateway.ib_async_internals.holdings import PnlFields
from position_sync_dagster.gateway.translate import known


class Confirmations:
    """What the broker has confirmed: of whole accounts, and of single holdings.

    Args:
        accounts: The accounts of the login.
        clock: The time of receipt.

    Attributes:
        completeness: How much of each account the broker has sent.
        online: Whether the gateway has IB; what it sends without IB confirms nothing.
        doubted: The accounts whose holdings are in doubt: no message confirms all of them.
    """

    def __init__(self, accounts: Iterable[str], *, clock: Clock) -> None:
        self.completeness = dict.fromkeys(accounts, Completeness.UNKNOWN)
        self.online = True
        self.doubted: Container[str] = ()
        self._clock = clock
        self._accounts: dict[str, datetime] = {}
        self._holdings: dict[Key, datetime] = {}

    def confirm(self, account: str, at: datetime | None = None) -> None:
        """Record that the broker confirmed every holding of an account.

        Call it for a received message alone: the end of a download, or a later row or time of a
        subscription whose download ended. The gateway sends only what changed then, so each
        message confirms the rest. Source: IB, "Account Updates".

        Args:
            account: The account.
            at: When the message arrived; by default now. An earlier one than the newest is ignored.
        """
        newest = self._accounts.get(account)
        if account in self.doubted:
            return
        if self.online and (at is None or newest is None or at > newest):
            self._accounts[account] = at or self._clock()

    def confirm_holding(self, key: Key, at: datetime) -> datetime | None:
        """Record that a message of a single holding arrived, and return as `of`."""
        if self.online:
            self._holdings[key] = at
        return self.of(key)

    def clear(self) -> None:
        """Mark every account as UNKNOWN and unconfirmed."""
        self._accounts.clear()
        self._holdings.clear()
        self.completeness |= dict.fromkeys(self.completeness, Completeness.UNKNOWN)

    def completeness_of(self, account: str) -> Completeness:
        """Return how much of an account the broker has sent."""
        return self.completeness.get(account, Completeness.UNKNOWN)

    def of_account(self, account: str) -> datetime | None:
        """Return when the broker last confirmed every holding of an account."""
        return self._accounts.get(account)

    def of(self, key: Key) -> datetime | None:
        """Return when the broker last confirmed a holding, by itself or with its account."""
        of_account = self._accounts.get(key[0])
        of_holding = self._holdings.get(key)
        if of_account is None or of_holding is None:
            return of_account or of_holding
        return max(of_account, of_holding)

    def stated(self, key: Key, holding: BrokerPosition, *, newer: bool = True) -> BrokerPosition:
        """Return a holding, of this key, with what is known of its account and of itself.

        Without `newer`, an older confirmation stays. A newer one than is known, from before the
        clock was set back, never does.
        """
        completeness = self.completeness_of(key[0])
        confirmed_at, before = self.of(key), holding.confirmed_at
        older = before is None or (confirmed_at is not None and before < confirmed_at)
        same = before == confirmed_at or (older and not newer)
        if same and holding.completeness is completeness:
            return holding
        return replace(holding, completeness=completeness, confirmed_at=confirmed_at)


def with_pnl(
    holding: BrokerPosition,
    sent: PnlFields,
    *,
    received_at: datetime,
    completeness: Completeness,
    confirmed_at: datetime | None,
) -> BrokerPosition:
    """Return a holding with the values of a PnLSingle message, which has no price and no time.

    It is written out: `replace` takes half as long again, for hundreds in a second.
    """
    realized_pnl = known(sent.realized)
    return BrokerPosition(
        gateway_id=holding.gateway_id,
        account=holding.account,
        instrument=holding.instrument,
        position=holding.position,
        average_cost=holding.average_cost,
        position_time=holding.position_time,
        snapshot_id=holding.snapshot_id,
        market_price=None,
        market_value=known(sent.value),
        unrealized_pnl=known(sent.unrealized),
        realized_pnl=realized_pnl if realized_pnl is not None else holding.realized_pnl,
        daily_pnl=known(sent.daily),
        value_source=ValueOrigin.PNL_SINGLE,
        value_time=None,
        received_at=received_at,
        completeness=completeness,
        confirmed_at=confirmed_at,
    )


def closed(holding: BrokerPosition, *, at: datetime, snapshot_id: str) -> BrokerPosition:
    """Return a holding that is closed: of its values, the realized profit stays."""
    return BrokerPosition(
        gateway_id=holding.gateway_id,
        account=holding.account,
        instrument=holding.instrument,
        position=0.0,
        realized_pnl=holding.realized_pnl,
        received_at=at,
        position_time=at,
        snapshot_id=snapshot_id,
    )


def with_exchange(instrument: Instrument, before: BrokerPosition | None) -> Instrument:
    """Keep the listing exchange when a later message leaves it empty."""
    if instrument.exchange or before is None or not before.instrument.exchange:
        return instrument
    return replace(instrument, exchange=before.instrument.exchange)
