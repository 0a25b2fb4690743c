"""The recorded connections, prepared for replay: which request each message belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from ib_gateway_simulator.errors import MalformedRequestError
from ib_gateway_simulator.protocol import requests
from ib_gateway_simulator.protocol.contract import ContractQuery
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.request_places import request_place
from ib_gateway_simulator.protocol.requests import Request
from ib_gateway_simulator.recordings.entry import GREETING, Closed, Entry, Message

_CANCELS = frozenset(
    {
        "cancelMktData",
        "cancelPnL",
        "cancelPnLSingle",
        "cancelAccountSummary",
        "cancelPositionsMulti",
        "cancelAccountUpdatesMulti",
    }
)
_OF_ACCOUNT_UPDATES = frozenset({"6", "7", "8", "54"})
# The name of the request that a message without an id answers, by the type of the message.
_OF_LIST = {
    "61": "reqPositions",
    "62": "reqPositions",
    "49": "reqCurrentTime",
    "53": "reqOpenOrders",
    "102": "reqCompletedOrders",
}

Key = tuple[object, ...]


@dataclass(eq=False, slots=True)
class Asked:
    """One recorded request.

    Attributes:
        made: Whether the client has made it in the replay.
        passed: Whether the replay went on without it.
        ended: Whether the client ended what it requested.
        req_id: The id that the client gave it.
        missed: What would have been sent, had the client made it in time.
        newest: Its newest messages, one of each kind and tick type.
    """

    at_s: float
    request: Request
    key: Key
    made: bool = False
    passed: bool = False
    ended: bool = False
    req_id: int = -1
    missed: list[Fields] = field(default_factory=list)
    newest: dict[tuple[str, str], Fields] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One recorded message of the gateway, with the request that it belongs to, if any."""

    at_s: float
    fields: Fields
    asked: Asked | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The gateway ended the connection."""

    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedConnection:
    """What happened on one connection from its log-in on.

    Attributes:
        greeting: The gateway's version and time.
        started_at_s: When the client logged in.
        down_s: For how long after its end attempts to log in were seen to fail.
    """

    number: int
    greeting: Fields
    started_at_s: float
    steps: tuple[Asked | Told | Ended, ...]
    down_s: float = 0.0


def key_of(request: Request, recorded_id: int = -1) -> Key:
    """Return what two requests have in common that match; their own ids do not count.

    A contract with a conid is compared by the conid alone, and a market data line without its
    generic ticks: clients write both in different ways. Two cancels match if they are of the same
    recorded request.
    """
    if request.name in _CANCELS:
        return (request.name, recorded_id)
    contract = request.contract
    if contract.conid:
        contract = ContractQuery(conid=contract.conid)
    text = request.text
    if request.name in ("reqMktData", "startApi"):
        text = ""

    bare = replace(request, req_id=-1, client_id=-1, fields=(), generic_ticks=(), text=text)
    return (replace(bare, contract=contract),)


def connections_of(entries: Iterable[Entry]) -> Iterator[RecordedConnection]:
    """Yield the connections on which a client logged in, in the order of their log-ins.

    After a connection, the gateway counts as down until the last attempt to log in that it ended.
    The time that a client waits between its attempts does not count.
    """
    by_number: dict[int, list[Entry]] = {}
    for entry in entries:
        by_number.setdefault(entry.connection, []).append(entry)
    connections = {number: _connection(number, mine) for number, mine in by_number.items()}
    whole = sorted(
        filter(None, connections.values()), key=lambda connection: connection.started_at_s
    )
    failed = [by_number[number][-1] for number, one in connections.items() if one is None]
    for one, after in zip_longest(whole, whole[1:]):
        ended_at_s = by_number[one.number][-1].at_s
        until_s = after.started_at_s if after else math.inf
        down = [
            entry.at_s - ended_at_s
            for entry in failed
            if isinstance(entry, Closed) and entry.by == "gateway"
            if ended_at_s <= entry.at_s <= until_s
        ]
        yield replace(one, down_s=max(down, default=0.0))


def _connection(number: int, entries: list[Entry]) -> RecordedConnection | None:
    greeting: Fields | None = None
    started_at_s: float | None = None
    steps: list[Asked | Told | Ended] = []
    newest: dict[str, Asked] = {}
    by_id: dict[str, Asked] = {}

    for entry in entries:
        match entry:
            case Closed(by="gateway"):  # where the recorder ended it, the gateway went on
                steps.append(Ended(at_s=entry.at_s))
            case Message(name=name, fields=fields) if name == GREETING:
                greeting = fields
            case Message(sender="client", name="startApi"):
                started_at_s = entry.at_s
            case Message(sender="client", fields=fields) if started_at_s is not None and fields:
                asked = _asked(entry.at_s, fields)
                if asked is None:
                    continue

                steps.append(asked)
                if asked.request.name not in _CANCELS:
                    by_id[str(asked.request.req_id)] = asked
                if asked.request.subscribe or asked.request.name != "reqAccountUpdates":
                    newest[asked.request.name] = asked
            case Message(sender="gateway", fields=fields) if started_at_s is not None and fields:
                asked = _answered(fields, newest, by_id)
                steps.append(Told(at_s=entry.at_s, fields=fields, asked=asked))
            case _:
                pass

    if greeting is None or started_at_s is None:
        return None
    return RecordedConnection(
        number=number, greeting=greeting, started_at_s=started_at_s, steps=tuple(steps)
    )


def _asked(at_s: float, fields: Fields) -> Asked | None:
    try:
        request = requests.decode(list(fields))
    except MalformedRequestError:
        return None
    return Asked(at_s=at_s, request=request, key=key_of(request, request.req_id))


def _answered(fields: Fields, newest: dict[str, Asked], by_id: dict[str, Asked]) -> Asked | None:
    at = request_place(fields)
    if at is not None:
        return by_id.get(fields[at])
    if fields[0] in _OF_ACCOUNT_UPDATES:
        return newest.get("reqAccountUpdates")
    return newest.get(_OF_LIST.get(fields[0], ""))
