"""What changed between two looks at the tables: fills, lines, and the gateway; pure."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.instrument import leg_name
from position_sync_dagster.domain.update import PositionUpdate, Source
from position_sync_dagster.sync.reports.overview import Overview
from position_sync_dagster.sync.reports.status import LoginStatus, Status
from position_sync_dagster.terminal.text import age, quantity

MOST_OF_A_KIND = 2
"""More changes of a kind in one look become one line with their number."""

KEPT = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change, in words."""

    at: datetime
    text: str


class Changes:
    """The last changes, found by comparing each look with the one before."""

    def __init__(self) -> None:
        self._before: Overview | None = None
        self._found: deque[Change] = deque(maxlen=KEPT)

    def add(self, now: Overview) -> Sequence[Change]:
        """Compare a look with the one before; return the last changes, the newest first."""
        if self._before is not None:
            for text in changes_between(self._before, now):
                self._found.appendleft(Change(at=now.status.at, text=text))
        self._before = now
        return list(self._found)


def changes_between(before: Overview, now: Overview) -> list[str]:
    """Return what changed, in words."""
    return [
        *_few("positions changed", _fills(before.book.holdings, now.book.holdings)),
        *_lines(before, now),
        *_gateways(before, now),
    ]


def _fills(before: Iterable[BrokerPosition], now: Iterable[BrokerPosition]) -> list[str]:
    earlier = {holding.key: holding.position for holding in before}
    if not earlier:  # the first download is no trade
        return []
    return [
        f"fill: {_name(holding)}  {quantity(earlier.get(holding.key, 0.0))} → "
        f"{quantity(holding.position)}"
        for holding in now
        if holding.position != earlier.get(holding.key, 0.0)
    ]


def _name(holding: BrokerPosition) -> str:
    one = holding.instrument
    return leg_name(one.symbol, one.right, one.strike, one.expiry)


def _lines(before: Overview, now: Overview) -> list[str]:
    earlier = {(row.account, row.conid): row for row in before.book.latest}

    def moved(source: Source) -> list[PositionUpdate]:
        return [
            row
            for row in now.book.latest
            if row.position
            and row.source is source
            and (was := earlier.get((row.account, row.conid))) is not None
            and was.source is not source
        ]

    promoted = [f"promotion: {_leg(row)} is streamed now" for row in moved(Source.STREAM)]
    demoted = [f"demotion: {_leg(row)} is monitored now" for row in moved(Source.QUEUE)]
    return [*_few("legs promoted", promoted), *_few("legs demoted", demoted)]


def _leg(row: PositionUpdate) -> str:
    return leg_name(row.symbol, row.right, row.strike, row.expiry)


def _few(what: str, texts: list[str]) -> list[str]:
    return texts if len(texts) <= MOST_OF_A_KIND else [f"{len(texts)} {what}"]


def _gateways(before: Overview, now: Overview) -> list[str]:
    earlier = {login.gateway_id: login for login in before.status.each_login}
    return [
        text
        for login in now.status.each_login
        if (was := earlier.get(login.gateway_id)) is not None
        and (text := _gateway(was, login, now.status)) is not None
    ]


def _gateway(before: LoginStatus | Status, now: LoginStatus | Status, status: Status) -> str | None:
    was, state = before.session_state, now.session_state
    if was == state or state is None:
        return None
    name = f" {now.gateway_id}" if status.logins else ""
    if state == SessionState.LIVE:
        gap = before.blind_since
        back = "" if gap is None or was is None else f" after {age(gap, status.at)}"
        return f"gateway{name}: connected{back}"
    detail = f" – {now.session_detail}" if now.session_detail else ""
    word = "outage" if was == SessionState.LIVE else "gateway"
    return f"{word}{name}: {state}{detail}"
