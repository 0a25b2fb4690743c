"""Values of single holdings: portfolio rows, and rows that cannot be used.

An unusable row is set aside by account and conid; the other rows are used.
"""

import logging
from collections.abc import Callable, Collection
from typing import NamedTuple

from ib_async import IB, Contract

from position_sync_dagster.domain.broker_position import Key, key_of
from position_sync_dagster.domain.gateway_session import SET_ASIDE
from position_sync_dagster.domain.instrument import CONIDS, Instrument
from position_sync_dagster.domain.leg import few
from position_sync_dagster.errors import shown
from position_sync_dagster.gateway import ib_async_internals, translate
from position_sync_dagster.gateway.codes import MessageType
from position_sync_dagster.gateway.ib_async_internals import RowFields
from position_sync_dagster.gateway.translate import PortfolioValues

logger = logging.getLogger(__name__)

UNREADABLE = "a row that cannot be read"

NAMED = 3
"""Number of rows that the detail of the session names; the others are counted."""


def oddness(row: RowFields, accounts: Collection[str]) -> str | None:
    """Return why a row of a holding cannot be used, by its fields as sent; None for a usable one.

    ib_async reads an empty quantity of a position as 0, which would be a close (2.1.0, decoder.py).

    >>> oddness(RowFields("DU1", "7", "SPY", "OPT", "100", "nan"), {"DU1"})
    "quantity 'nan'"
    >>> oddness(RowFields("DU1", "7", "SPY", "OPT", "100", "2.0"), {"DU1"})
    """
    if row.account not in accounts:
        return "an account of another login" if row.account else "no account"
    number = translate.number_of(row.conid)
    if number is None or not number.is_integer() or int(number) not in CONIDS:
        return f"conid {shown(row.conid)}"
    if not row.symbol.strip():
        return "no symbol"
    if translate.number_of(row.quantity) is None:
        return f"quantity {shown(row.quantity)}"
    if translate.multiplier_of(row.sec_type, row.multiplier) is None:
        return f"multiplier {shown(row.multiplier)} ({row.sec_type})"
    return None


class OddRows:
    """The rows that were set aside, by account and conid, each with the reason.

    Args:
        accounts: The accounts of the login.
        on_change: Called with an account when one of its rows is set aside, or usable again.

    Attributes:
        seen: The rows that were set aside since `seen` was cleared last.
    """

    def __init__(self, accounts: Collection[str], *, on_change: Callable[[str], None]) -> None:
        self.seen: set[Key] = set()
        self._accounts = accounts
        self._on_change = on_change
        self._reasons: dict[Key, str] = {}
        self._refused: dict[Key, str] = {}
        self._logged: set[Key] = set()

    def __contains__(self, key: Key) -> bool:
        """Return whether the newest row of a holding was set aside."""
        return key in self._reasons

    def __bool__(self) -> bool:
        """Return whether any row is set aside."""
        return bool(self._reasons)

    def accepts(self, row: RowFields) -> bool:
        """Return whether a row can be used, by its fields as sent; set it aside if not."""
        why = oddness(row, self._accounts)
        if self._refused and why is None:
            why = self._refused.get(key_as_sent(row.account, row.conid))
        if why is not None:
            self.set_aside(row.account, row.conid, why)
        elif self and self._reasons.pop(key_as_sent(row.account, row.conid), None) is not None:
            self._on_change(row.account)
        return why is None

    def set_aside(self, account: str, conid: str, reason: str = UNREADABLE) -> None:
        """Set a row aside, by its account and conid as sent."""
        key = key_as_sent(account, conid)
        self.seen.add(key)
        self._reasons[key] = reason
        if key not in self._logged:
            self._logged.add(key)
            logger.warning("a holding (conid %s) is set aside: the gateway sent %s", key[1], reason)
        if account in self._accounts:
            self._on_change(account)

    def refuse(self, account: str, conid: str, reason: str) -> None:
        """Set every row of a holding aside, this one and later ones, until `accept_again`."""
        self._refused[key_as_sent(account, conid)] = reason
        self.set_aside(account, conid, reason)

    def accept_again(self) -> None:
        """Accept the next usable row of each holding that was refused."""
        self._refused.clear()

    def keep_seen(self) -> None:
        """Forget rows not seen since `seen` was cleared: a whole list no longer names them."""
        self._reasons = {k: reason for k, reason in self._reasons.items() if k in self.seen}

    def of(self, account: str) -> bool:
        """Return whether a row of this account is set aside."""
        return any(key[0] == account for key in self._reasons)

    def problem(self) -> str | None:
        """Return how many rows are set aside, with the first of them by name; None without one."""
        if not self._reasons:
            return None
        named = [
            f"conid {conid} of {account or 'no account'} ({reason})"
            for (account, conid), reason in sorted(self._reasons.items())
        ]
        count = len(self._reasons)
        noun = "holding is" if count == 1 else "holdings are"
        return f"{count} {noun} {SET_ASIDE}{few(named, NAMED)}"


def key_as_sent(account: str, conid: str) -> Key:
    """Return the key under which a row is set aside; 0 stands for a conid that is no number."""
    return (account, int(translate.number_of(conid) or 0))


FIELDS = 20
"""The number of fields of a portfolio row."""


class PortfolioRow(NamedTuple):
    """A portfolio row: what an account holds of an instrument, and the broker's values of it."""

    key: Key
    instrument: Instrument
    position: float
    values: PortfolioValues


class PortfolioRows:
    """Reads portfolio rows faster than ib_async: a large account sends all every three minutes.

    For each row ib_async inspects the type of each field of the contract, makes two contracts and
    formats a log line that nobody reads.

    Args:
        ib: The connection.
        odd_rows: Decides which rows are set aside.
        on_row: Gets each of the others.
    """

    def __init__(
        self, ib: IB, odd_rows: OddRows, *, on_row: Callable[[PortfolioRow], None]
    ) -> None:
        self._odd_rows = odd_rows
        self._on_row = on_row
        ib_async_internals.read_messages(ib, MessageType.PORTFOLIO_VALUE, self._read)

    def _read(self, fields: list[str]) -> bool:
        if len(fields) < ib_async_internals.WHOLE_ROW:
            return False
        account, conid = fields[-1], fields[2]
        sent = RowFields(account, conid, fields[3], fields[4], fields[8], fields[-7])
        if not self._odd_rows.accepts(sent):
            return True
        try:
            instrument = translate.instrument_of(_contract_of(fields))
            position, price, value, cost, unrealized, realized = map(float, fields[-7:-1])
        except ValueError:
            self._odd_rows.set_aside(account, conid)
            return True
        values = PortfolioValues(
            average_cost=translate.known(cost),
            market_price=translate.known(price),
            market_value=translate.known(value),
            unrealized_pnl=translate.known(unrealized),
            realized_pnl=translate.known(realized),
        )
        self._on_row(PortfolioRow(key_of(account, instrument.conid), instrument, position, values))
        return True


def _contract_of(fields: list[str]) -> Contract:
    """Return the contract of a row.

    Raises:
        ValueError: The row has another number of fields, or one of these is no number.
    """
    if len(fields) != FIELDS:
        raise ValueError(f"{len(fields)} fields")
    return Contract(
        conId=int(fields[2] or 0),
        symbol=fields[3],
        secType=fields[4],
        lastTradeDateOrContractMonth=fields[5],
        strike=float(fields[6] or 0),
        right=fields[7],
        multiplier=fields[8],
        primaryExchange=fields[9],
        currency=fields[10],
        localSymbol=fields[11],
        tradingClass=fields[12],
    )
