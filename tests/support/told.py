"""Messages about three accounts, and what a client may believe after all that a gateway said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ib_gateway_simulator.books.book import Account, Book
from ib_gateway_simulator.gateway.scripts import Cut, Message
from ib_gateway_simulator.market.underlying import Underlying
from ib_gateway_simulator.protocol import account_messages, messages
from ib_gateway_simulator.protocol.contract import Contract, SecType

Key = tuple[str, int]

ACCOUNTS = ("DUSIM0001", "DUSIM0002", "DUSIM0003")
CONIDS = (7001, 7002, 7003, 7004, 7005)
POSITION = "61"
PORTFOLIO = "7"
POSITION_FIELDS = 16
PORTFOLIO_FIELDS = 20
END = account_messages.position_end()
LOST = messages.error(-1, 1100, "Connectivity has been lost.")
DROPPED = messages.error(-1, 1101, "Connectivity restored - data lost.")
KEPT = messages.error(-1, 1102, "Connectivity restored - data maintained.")


def position(account: str, conid: int, held: float | str) -> Sequence[str]:
    """Return a position row."""
    return account_messages.position(account, _contract(conid), held, 120.5)


def portfolio(account: str, conid: int, held: float | str, price: float = 1.5) -> Sequence[str]:
    """Return a portfolio row; its value follows from quantity and price."""
    value = price * 100 * held if isinstance(held, int | float) else 0.0
    return account_messages.portfolio_value(
        account, _contract(conid), held=held, price=price, value=value,
        average_cost=120.5, unrealized=3.0, realized=0.0,
    )  # fmt: skip


def _contract(conid: int) -> Contract:
    return Contract(
        conid=conid, symbol="XYZ", sec_type=SecType.OPT, underlying="XYZ", expiry="20281215",
        strike=100.0, right="C", multiplier=100.0, local_symbol="XYZ   281215C00100000",
        trading_class="XYZ",
    )  # fmt: skip


# The accounts and contracts of a login that holds nothing but what a script says.
XYZ = Underlying(symbol="XYZ", conid=7000, price=100.0, volatility=0.3)
BOOK = Book(
    name="said",
    as_of=None,
    rate=0.04,
    accounts=tuple(Account(name=name, currency="USD", cash=0.0) for name in ACCOUNTS),
    underlyings={XYZ.symbol: XYZ},
    contracts={conid: _contract(conid) for conid in CONIDS},
    openings=(),
)


class Row(NamedTuple):
    """A position or portfolio row; its quantity is None if it cannot be used."""

    key: Key
    quantity: float | None
    is_position: bool

    @property
    def account(self) -> str:
        """The account that the row names."""
        return self.key[0]


class _Phase:
    """What the messages of a phase say together, and what was read of them so far.

    Attributes:
        last: The newest usable quantity of each holding.
        unsure: The holdings of which a list may be older than a value that came in it, or than a
            row that cannot be used.
        mentioned: The accounts of which a message is, or may be, a row of an open holding.
        listed: The open holdings that the list named so far.
        valued: The holdings of which a portfolio row came in the list so far.
        late: The holdings whose newest position may be older than a portfolio row.
    """

    def __init__(self, messages: Sequence[Message], accounts: Sequence[str]) -> None:
        rows = [row for message in messages if (row := named(message)) is not None]
        self.last = {row.key: row.quantity for row in rows if row.quantity is not None}
        self.unsure = {row.key for row in rows if row.quantity is None or not row.is_position}
        self.mentioned = {
            account for message in messages for account in _may_be_open(message, accounts)
        }
        self.listed: set[Key] = set()
        self.valued: set[Key] = set()
        self.late: set[Key] = set()

    def accounts_named(self) -> set[str]:
        """Return the accounts of which the list names a holding that is open for sure."""
        return {key[0] for key in self.listed - self.late if self.last[key]}


def _may_be_open(message: Message, accounts: Sequence[str]) -> set[str]:
    """Return the account of which a message is, or may be, a row of an open holding."""
    if isinstance(message, bytes | Cut) or not message or message[0] not in (POSITION, PORTFOLIO):
        return set()
    row = named(message)
    return set() if row is not None and row.quantity == 0 else set(accounts).intersection(message)


class Told:
    """What a client may believe of each holding, after all that a gateway has said.

    A usable row sets a quantity, and the end of a list closes what the list did not name. In an
    account of which it names nothing it closes nothing, unless a list before it did the same. A
    position that contradicts a portfolio row, and is in no list that was requested after that row,
    may be older than the row. Where nobody knows how much of a phase was read, what was believed
    before is allowed as well.

    Attributes:
        accounts: Those that the login manages; nothing changes in others.
        allowed: The quantities that each holding may have.
        valued: The quantity of the newest portfolio row of each holding.
        emptied: The accounts that a list may have emptied, so that the next one may close them.
    """

    def __init__(self, accounts: Sequence[str]) -> None:
        self.accounts = accounts
        self.allowed: dict[Key, set[float]] = {}
        self.valued: dict[Key, float] = {}
        self.emptied: set[str] = set()

    def hear(self, messages: Sequence[Message], *, list_at: int | None, whole: bool) -> None:
        """Take what was said in a phase.

        Args:
            messages: All messages of the phase.
            list_at: Where the list begins that the client counted as whole; None: it counted none.
            whole: Whether all of it was read.
        """
        phase = _Phase(messages, self.accounts)
        is_listing = list_at is not None
        for at, message in enumerate(messages):
            if whole and message in (LOST, DROPPED):
                self.emptied.clear()

            in_list = list_at is not None and at >= list_at
            row = named(message)
            if in_list and message == END:
                list_at = None
                self._end_list(phase, whole=whole)
            elif row is not None and row.account in self.accounts:
                self._hear_row(phase, row, in_list=in_list, whole=whole)
                if row.quantity and whole and not is_listing:
                    self.emptied.discard(row.account)

    def _hear_row(self, phase: _Phase, row: Row, *, in_list: bool, whole: bool) -> None:
        key, quantity, is_position = row
        if is_position and quantity and in_list:
            phase.listed.add(key)
        if quantity is None:
            return

        is_newest = in_list and key not in phase.valued
        contradicts = self.valued.get(key, quantity) != quantity
        is_late = is_position and contradicts and not is_newest
        (phase.late.add if is_late else phase.late.discard)(key)
        self._set(key, quantity, certain=whole and not is_late)

        if not is_position:
            self.valued[key] = quantity
            if in_list:
                phase.valued.add(key)

    def _end_list(self, phase: _Phase, *, whole: bool) -> None:
        accounts_named = phase.accounts_named() if whole else set()
        absent = self.allowed.keys() - phase.listed
        for account in self.accounts:
            is_named = account in accounts_named
            if account in phase.mentioned or account in self.emptied:
                for key in absent:
                    if key[0] == account:
                        self._set(key, 0.0, certain=is_named and key not in phase.unsure)

            (self.emptied.discard if is_named else self.emptied.add)(account)

    def after(self, messages: Sequence[Message], *, list_at: int | None) -> dict[Key, set[float]]:
        """Return what each holding may have had in a phase, or before it."""
        told = Told(self.accounts)
        told.allowed = dict(self.allowed)
        told.emptied = set(self.emptied)
        told.valued = dict(self.valued)
        told.hear(messages, list_at=list_at, whole=False)
        return told.allowed

    def _set(self, key: Key, quantity: float, *, certain: bool) -> None:
        before = set() if certain else self.allowed.get(key, set())
        self.allowed[key] = before | {quantity}


def is_whole(listed: Sequence[Message]) -> bool:
    """Return whether a list may count: it ended, and nothing before its end was unreadable."""
    if END not in listed:
        return False
    before = listed[: listed.index(END)]
    return not any(message == LOST or _hides_a_position(message) for message in before)


def _hides_a_position(message: Message) -> bool:
    """Return whether a message is, or may have been, a position that cannot be read."""
    if isinstance(message, bytes | Cut) or not message or not message[0].isdecimal():
        return True
    return message[0] == POSITION and len(message) < POSITION_FIELDS


def named(message: Message) -> Row | None:
    """Return the row that a message is, if it names a holding."""
    if isinstance(message, bytes | Cut) or not message:
        return None
    is_position = message[0] == POSITION and len(message) == POSITION_FIELDS
    if is_position:
        account = message[2]
        conid, symbol, multiplier = message[3], message[4], message[9]
        held = message[14]
        numbers = [message[15] or "0", message[7] or "0"]
    elif message[0] == PORTFOLIO and len(message) == PORTFOLIO_FIELDS:
        account = message[19]
        conid, symbol, multiplier = message[2], message[3], message[8]
        held, *numbers = message[13:19]
    else:
        return None
    if not conid.isdecimal():
        return None

    key = (account, int(conid))
    try:
        quantity, *_ = map(float, [held, *numbers])
    except ValueError:
        return Row(key, None, is_position)
    is_usable = symbol.strip() and multiplier == "100" and abs(quantity) < 1e300
    return Row(key, quantity if is_usable and 0 < key[1] < 1 << 31 else None, is_position)
