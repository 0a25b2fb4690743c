"""A gateway that says whatever a script has, and what a client may believe of all that it said."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import Enum

from ib_gateway_simulator.protocol import account_messages, contract_messages, messages, wire
from ib_gateway_simulator.protocol.contract import Contract, SecType

Key = tuple[str, int]


class Cut(Enum):
    """The end of the connection: half a message, and the socket is closed."""

    HERE = "cut here"


# Fields, or bytes as they are, or the end.
Message = Sequence[str] | bytes | Cut

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


class FakeGateway:
    """Logs clients in, and answers a list or a download with what the test has set.

    Attributes:
        listing: What follows the next reqPositions.
        downloads: What follows the next reqAccountUpdates of an account.
        said: The messages since the test cleared it.
        lists_at: Where the answers to reqPositions begin in `said`.
        lines: conid → the request of its market data line that runs.
        profits: conid → the request of its profit and loss that runs.
        most: The most clients that were connected at once.
    """

    def __init__(self, accounts: Sequence[str]) -> None:
        self.accounts = tuple(accounts)
        self.listing: Sequence[Message] = (END,)
        self.downloads: dict[str, Sequence[Message]] = {}
        self.said: list[Message] = []
        self.lists_at: list[int] = []
        self.most = 0
        self.lines: dict[int, int] = {}
        self.profits: dict[int, int] = {}
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FakeGateway:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def say(self, messages: Iterable[Message]) -> None:
        """Send messages in one packet."""
        data, messages = bytearray(), list(messages)
        self.said += messages
        for message in messages:
            if isinstance(message, Cut):
                data += wire.frame(position(ACCOUNTS[0], CONIDS[0], 9))[:40]
                break
            data += message if isinstance(message, bytes) else wire.frame(message)
        for writer in self._writers:
            writer.write(data)
            if Cut.HERE in messages:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None

        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.append(writer)

        self.most = max(self.most, len(self._writers))
        ends = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)

        try:
            with suppress(*ends):
                await reader.readexactly(len(wire.PREFIX))
                await _read(reader)
                version = str(wire.MAX_SERVER_VERSION)
                writer.write(wire.frame((version, "20261120 23:30:01 Greenwich Mean Time")))

                logging_in = True
                while True:
                    request = await _read(reader)
                    if logging_in and request[0] == "61":
                        # ib_async asks once at the log-in, and nobody may believe that answer.
                        logging_in = False
                        self.say([END])
                    else:
                        self._answer(request)
        finally:
            self._writers.remove(writer)
            writer.close()
            with suppress(*ends):
                await writer.wait_closed()

    def _answer(self, request: list[str]) -> None:
        match request:
            case ["71", *_]:
                login = account_messages.managed_accounts(self.accounts)
                self.say([login, messages.next_valid_id(1)])
            case ["61", *_]:
                self.lists_at.append(len(self.said))
                self.say(self.listing)

                # Interrupted, it is requested again: the answer is then without an interruption.
                self.listing = [m for m in self.listing if m not in (LOST, DROPPED, KEPT)]
            case ["9", _, request_id, conid, *_]:
                row = (int(request_id), _contract(int(conid)), "SMART", "", "", "")
                end = contract_messages.contract_details_end(int(request_id))
                self.say([contract_messages.contract_details(*row), end])
            case ["7", _, request_id, *_]:
                self.say([messages.executions_end(int(request_id))])
            case ["1", _, request_id, conid, *_]:
                self.lines[int(conid)] = int(request_id)
            case ["2", _, request_id]:
                _forget(self.lines, int(request_id))
            case ["94", request_id, _, _, conid]:
                self.profits[int(conid)] = int(request_id)
            case ["95", request_id]:
                _forget(self.profits, int(request_id))
            case ["6", _, "1", account, *_]:
                self.say(self.downloads.get(account, ()))
            case ["6", _, "0", *_]:
                self.say([messages.error(-1, 2100, "API client has been unsubscribed.")])
            case ["49", *_]:
                self.say([messages.current_time(1795216201)])


def _forget(requests: dict[int, int], request_id: int) -> None:
    for conid in [conid for conid, request in requests.items() if request == request_id]:
        del requests[conid]


async def _read(reader: asyncio.StreamReader) -> list[str]:
    (length,) = struct.unpack(">I", await reader.readexactly(4))
    return wire.fields_of(await reader.readexactly(length))


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
            said: All messages of the phase.
            list_at: Where the list begins that the client counted as whole; None: it counted none.
            whole: Whether all of it was read.
        """
        rows = [(message[0], row) for message in messages if (row := named(message)) is not None]
        # A list may be older than a value that came in it, and than a row that cannot be used.
        unsure = {row[0] for kind, row in rows if row[1] is None or kind == PORTFOLIO}
        last = {row[0]: row[1] for _, row in rows if row[1] is not None}
        mentioned = {account for message in messages for account in self._mentioned_by(message)}
        named_since: set[Key] = set()
        valued_since: set[Key] = set()
        late: set[Key] = set()
        listing = list_at is not None
        for at, message in enumerate(messages):
            if message in (LOST, DROPPED) and whole:
                self.emptied.clear()

            if list_at is not None and at >= list_at and message == END:
                list_at = None
                open_ones = {key[0] for key in named_since - late if last[key]}
                for account in self.accounts:
                    absent = {key for key in self.allowed.keys() - named_since if key[0] == account}
                    if account in mentioned or account in self.emptied:
                        for key in absent:
                            certain = whole and account in open_ones and key not in unsure
                            self._set(key, 0.0, certain=certain)

                    is_named = whole and account in open_ones
                    (self.emptied.discard if is_named else self.emptied.add)(account)
            elif (row := named(message)) is not None and row[0][0] in self.accounts:
                key = row[0]
                quantity = row[1]
                is_position = message[0] == POSITION
                if is_position and quantity and list_at is not None and at >= list_at:
                    named_since.add(key)

                if quantity is not None:
                    in_list = list_at is not None and at >= list_at and key not in valued_since
                    contradicts = self.valued.get(key, quantity) != quantity
                    is_late = is_position and contradicts and not in_list
                    (late.add if is_late else late.discard)(key)
                    self._set(key, quantity, certain=whole and not is_late)
                    if not is_position:
                        self.valued[key] = quantity
                        if list_at is not None and at >= list_at:
                            valued_since.add(key)
                if quantity and whole and not listing:
                    self.emptied.discard(key[0])

    def _mentioned_by(self, message: Message) -> set[str]:
        """Return the accounts of which a message is, or may be, a row of an open holding."""
        if isinstance(message, bytes | Cut) or not message:
            return set()
        row = named(message)
        is_row = message[0] in (POSITION, PORTFOLIO) and (row is None or row[1] != 0)
        return set(self.accounts).intersection(message) if is_row else set()

    def after(self, messages: Sequence[Message], *, list_at: int | None) -> dict[Key, set[float]]:
        """Return what each holding may have had in a phase, or before it."""
        found = Told(self.accounts)
        found.allowed, found.emptied = dict(self.allowed), set(self.emptied)
        found.valued = dict(self.valued)
        found.hear(messages, list_at=list_at, whole=False)
        return found.allowed

    def _set(self, key: Key, quantity: float, *, certain: bool) -> None:
        before = set() if certain else self.allowed.get(key, set())
        self.allowed[key] = before | {quantity}


def is_whole(listed: Sequence[Message]) -> bool:
    """Return whether a list may count: it ended, and nothing before its end was unreadable."""
    if END not in listed:
        return False
    before = listed[: listed.index(END)]
    return not any(_hides_a_position(m) or m in (LOST, Cut.HERE) for m in before)


def _hides_a_position(message: Message) -> bool:
    """Return whether a message is, or may have been, a position that cannot be read."""
    if isinstance(message, Cut):
        return True
    if isinstance(message, bytes) or not message or not message[0].isdecimal():
        return True
    return message[0] == POSITION and len(message) < POSITION_FIELDS


def named(message: Message) -> tuple[Key, float | None] | None:
    """Return holding and quantity of a row; None for a quantity that cannot be used."""
    if isinstance(message, bytes | Cut) or not message:
        return None
    if message[0] == POSITION and len(message) == POSITION_FIELDS:
        account, conid, symbol, held, *numbers = (message[at] for at in (2, 3, 4, 14, 15, 7))
    elif message[0] == PORTFOLIO and len(message) == PORTFOLIO_FIELDS:
        account, conid, symbol, held = (message[at] for at in (19, 2, 3, 13))
        numbers = list(message[14:19])
    else:
        return None
    if not conid.isdecimal():
        return None

    key = (account, int(conid))
    try:
        quantity = float(held)
        for text in numbers:
            float(text or 0 if message[0] == POSITION else text)
    except ValueError:
        return key, None
    usable = symbol.strip() and abs(quantity) < 1e300 and 0 < key[1] < 1 << 31
    multiplier = message[9 if message[0] == POSITION else 8]
    usable = usable and multiplier == "100"
    return key, quantity if usable else None
