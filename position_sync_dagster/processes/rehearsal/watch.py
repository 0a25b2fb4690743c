"""What a rehearsal keeps of the messages of a gateway: times, counts, and the broker's values.

The values stay in memory, and only ratios of them leave it.
"""

import asyncio
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import NamedTuple

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.gateway import wire
from position_sync_dagster.gateway.codes import ENDS_LINE, GatewayCode, farm_of
from position_sync_dagster.gateway.wire import UNSET

# What ends a list: the message, by the id of the request.
ENDS = {"6": "54", "61": "62", "9": "52", "7": "55"}
ENDED = {message: request for request, message in ENDS.items()}

# A list that has not ended after this time, in seconds, has no end.
END_WITHIN_S = 5.0

_MODEL_TICKS = ("13", "83")
_TICKS = ("1", "2", "21", "45", "46")


@dataclass(slots=True)
class Pace:
    """How often something came: since its first time, or since a pause."""

    first_at: float
    last_at: float
    count: int = 1

    @property
    def period_s(self) -> float | None:
        """The mean time between two; None before the second."""
        if self.count < 2:
            return None
        return (self.last_at - self.first_at) / (self.count - 1)


@dataclass(slots=True)
class Line:
    """A market data line: when it was requested, and what came first."""

    conid: int
    sec_type: str
    requested_at: float
    ticked_at: float | None = None
    model_at: float | None = None
    ended_by: int | None = None
    ticks_after_end: int = 0
    running: bool = True


class BrokerValue(NamedTuple):
    """What the broker said of the value of a holding, and when."""

    source: str
    account: str
    conid: int
    timestamp: datetime
    value: float


class ModelTick(NamedTuple):
    """The gateway's option computation of a contract, as it is quoted."""

    conid: int
    at: datetime
    implied_vol: float
    delta: float
    price: float
    gamma: float
    vega: float
    theta: float
    underlying_price: float


class PortfolioRow(NamedTuple):
    """A portfolio row of the broker."""

    sec_type: str
    multiplier: float
    position: float
    price: float
    value: float
    average_cost: float
    unrealized: float


@dataclass
class Watch:
    """Watches the messages of a gateway, as a listener of its connections.

    Attributes:
        held: The contract fields of each holding in the list of positions.
        listed: Set when a list of positions has ended.
        requested, ended, missing: How many lists were requested, ended properly, or did not.
        followed: After which code which other came, for the same farm, and the seconds between.
        resets: When most daily profits became 0.
        outages: When the connection ended, and the seconds until the next one.
    """

    monotonic: Callable[[], float] = time.monotonic
    clock: Clock = utc_now

    began_at: float = field(init=False)
    held: dict[Key, Sequence[str]] = field(default_factory=dict)
    listed: asyncio.Event = field(default_factory=asyncio.Event)
    lines: dict[str, Line] = field(default_factory=dict)
    peak_lines: int = 0
    most_sent: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    requested: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    blank_ends: int = 0
    rows: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    singles: dict[str, Key] = field(default_factory=dict)
    paces: dict[tuple[str, str], Pace] = field(default_factory=dict)
    clocks: Counter[str] = field(default_factory=Counter)
    offsets: Counter[int] = field(default_factory=Counter)
    followed: defaultdict[tuple[int, int], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    resets: list[datetime] = field(default_factory=list)
    outages: list[tuple[datetime, float]] = field(default_factory=list)
    portfolio: dict[Key, PortfolioRow] = field(default_factory=dict)
    daily: dict[Key, float] = field(default_factory=dict)
    daily_gaps: list[float] = field(default_factory=list)
    values: list[BrokerValue] = field(default_factory=list)
    model_ticks: dict[tuple[int, int], ModelTick] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began_at = self.monotonic()
        self._sent: deque[float] = deque()
        self._waiting: dict[tuple[str, str], float] = {}
        self._row_at: dict[tuple[str, str, str], float] = {}
        self._broken: dict[str, tuple[int, float]] = {}
        self._closed_at: tuple[datetime, float] | None = None
        self._zeros: dict[Key, float] = {}
        self._accounts: dict[str, str] = {}
        self._told_daily: dict[str, float] = {}

    def __call__(self, from_client: bool, fields: Sequence[str]) -> None:
        """Take a message; one that cannot be read is left to the counts of `Heard`."""
        with suppress(ValueError, IndexError):
            if from_client:
                self._sent_by_us(self.monotonic(), fields)
            else:
                self._said(self.monotonic(), fields)

    def close(self) -> None:
        """Count the lists that have no end."""
        for request, about in list(self._waiting):
            self._missed(request, about, self.monotonic())

    # -- requests -----------------------------------------------------------------------------

    def _sent_by_us(self, at: float, fields: Sequence[str]) -> None:
        self._sent.append(at)
        while self._sent[0] <= at - 1.0:
            self._sent.popleft()
        self.most_sent = max(self.most_sent, len(self._sent))

        match fields[0]:
            case "1":
                self.lines[fields[2]] = Line(int(fields[3]), fields[5], at)
                running = sum(line.running for line in self.lines.values())
                self.peak_lines = max(self.peak_lines, running)
            case "2":
                self.lines[fields[2]].running = False
            case "6":
                self._request_account(at, is_subscribed=fields[2] == "1", account=fields[3])
            case "61":
                self._request("61", "", at)
            case "7" | "9":
                self._request(fields[0], fields[2], at)
            case "92":
                self._accounts[fields[1]] = fields[2]
            case "94":
                self.singles[fields[1]] = (fields[2], int(fields[4]))
            case _:
                pass

    def _request_account(self, at: float, *, is_subscribed: bool, account: str) -> None:
        """Begin a download; rows that it brings say nothing of how often rows come."""
        for key in [key for key in self._row_at if key[1] == account]:
            del self._row_at[key]
        if is_subscribed:
            self._request("6", account, at)
        elif ("6", account) in self._waiting:
            self._missed("6", account, at)

    def _request(self, request: str, about: str, at: float) -> None:
        if (request, about) in self._waiting:
            self._missed(request, about, at)
        self.requested[request] += 1
        self._waiting[request, about] = at

    def _missed(self, request: str, about: str, at: float) -> None:
        """Give up a list that is requested anew, or cancelled, unless it had little time."""
        self.missing[request] += at - self._waiting.pop((request, about)) >= END_WITHIN_S

    # -- messages -----------------------------------------------------------------------------

    def _said(self, at: float, fields: Sequence[str]) -> None:
        match fields[0]:
            case kind if kind in _TICKS:
                self._ticked(at, fields)
            case "95":
                self._profit_of_holding(at, fields)
            case "94":
                self._profit_of_account(at, fields)
            case "7":
                self._portfolio_row(at, fields)
            case "6":
                self._came_again(at, "account values", fields[5], fields[2])
            case "8":
                self._account_time(fields[2])
            case "61":
                self.held[fields[2], int(fields[3])] = (*fields,)
            case "62":
                self.listed.set()
                self._ended("61", "")
            case "54":
                self.blank_ends += not fields[2]
                self._ended("6", fields[2])
            case "52" | "55":
                self._ended(ENDED[fields[0]], fields[2])
            case "4":
                self._coded(at, fields[2], int(fields[3]), fields[4])
            case wire.CLOSED:
                self._waiting.clear()
                self._row_at.clear()
                self._closed_at = (self.clock(), at)
                for line in self.lines.values():
                    line.running = False
            case wire.GREETING if self._closed_at is not None:
                self.outages.append((self._closed_at[0], at - self._closed_at[1]))
                self._closed_at = None
            case _:
                pass

    def _ended(self, request: str, about: str) -> None:
        """Count the end of a list; of a blank account it is that of the one that is awaited."""
        waiting = [key for key in self._waiting if key[0] == request]
        key = (request, about)
        if request == "6" and not about and waiting:
            key = waiting[-1]
        self.ended[request] += self._waiting.pop(key, None) is not None

    def _ticked(self, at: float, fields: Sequence[str]) -> None:
        is_model = fields[0] == "21"
        request = fields[1] if is_model else fields[2]
        line = self.lines[request]
        line.ticks_after_end += line.ended_by is not None
        if line.ticked_at is None:
            line.ticked_at = at
        if is_model and fields[2] in _MODEL_TICKS:
            line.model_at = line.model_at or at
            self._model_tick(line.conid, fields)

    def _model_tick(self, conid: int, fields: Sequence[str]) -> None:
        """Keep the newest computation of each minute."""
        told = [float(text) for text in fields[4:12]]
        vol, delta, price, _dividend, gamma, vega, theta, spot = told
        if all(map(isfinite, told)) and max(told) < UNSET and vol > 0 and spot > 0 and price > 0:
            now = self.clock()
            minute = int(now.timestamp() // 60)
            self.model_ticks[conid, minute] = ModelTick(
                conid, now, vol, delta, price, gamma, vega, theta, spot
            )

    def _profit_of_holding(self, at: float, fields: Sequence[str]) -> None:
        key = self.singles[fields[1]]
        self._paced(at, "PnLSingle", fields[1])
        daily = _number(fields[3])
        value = _number(fields[6])
        if daily is not None:
            if daily == 0 and self.daily.get(key):
                self._zeroed(at, key)
            self.daily[key] = daily

        if value is not None and self._is_streamed(key):
            self.values.append(BrokerValue("PnLSingle", *key, self.clock(), value))

    def _zeroed(self, at: float, key: Key) -> None:
        """Count a daily profit that became 0: with most others within a minute it is a reset."""
        self._zeros = {other: then for other, then in self._zeros.items() if at - then <= 60.0}
        self._zeros[key] = at
        if 1 < len(self.daily) <= 2 * len(self._zeros):
            self.resets.append(self.clock())
            self._zeros.clear()

    def _profit_of_account(self, at: float, fields: Sequence[str]) -> None:
        account = self._accounts[fields[1]]
        self._paced(at, "PnL", fields[1])
        daily = _number(fields[2])
        held = [key for key, row in self.held.items() if key[0] == account and float(row[14])]
        if daily is None or not all(key in self.daily for key in held):
            return

        moves = [self.daily[key] for key in held]
        # The holdings follow their account, or come before it: the nearer of two counts.
        gaps = [abs(sum(moves) - told) for told in (daily, self._told_daily.get(account, daily))]
        self._told_daily[account] = daily
        if any(moves):
            self.daily_gaps.append(min(gaps) / sum(map(abs, moves)))

    def _portfolio_row(self, at: float, fields: Sequence[str]) -> None:
        key = (fields[19], int(fields[2]))
        self._came_again(at, "portfolio rows", fields[19], fields[2])
        row = PortfolioRow(fields[4], float(fields[8] or 1), *map(float, fields[13:18]))
        self.portfolio[key] = row
        if row.position and 0 < abs(row.value) < UNSET and self._is_streamed(key):
            value = BrokerValue("portfolio row", *key, self.clock(), row.value)
            self.values.append(value)

    def _is_streamed(self, key: Key) -> bool:
        return any(line.running and line.conid == key[1] for line in self.lines.values())

    def _account_time(self, told: str) -> None:
        form = re.sub(r"\d", "9", told)
        self.clocks[form if set(form) <= set("9:- ") else "text"] += 1
        hours, minutes = map(int, told.split(":"))
        now = self.clock()
        # Rounded to a quarter of an hour: the time of a row may be minutes old.
        quarters = round((60 * hours + minutes - 60 * now.hour - now.minute) / 15)
        self.offsets[(15 * quarters + 720) % 1440 - 720] += 1

    def _coded(self, at: float, request: str, code: int, text: str) -> None:
        self.codes[code] += 1
        line = self.lines.get(request)
        if line is not None and code in ENDS_LINE:
            line.ended_by = code
            line.running = False
        for kind in ("9", "7"):
            if self._waiting.pop((kind, request), None) is not None:
                self.ended[kind] += 1
        if code in (GatewayCode.RESTORED_DATA_LOST, GatewayCode.ACCOUNT_UNSUBSCRIBED):
            self._waiting = {key: then for key, then in self._waiting.items() if key[0] != "6"}

        about = ""
        if code in range(2103, 2109) or code in (2119, 2157, 2158, 2159):
            about = farm_of(text)
        elif code not in (1100, 1101, 1102, 2110):
            return
        before = self._broken.pop(about, None)
        if before is not None:
            self.followed[before[0], code].append(at - before[1])
        self._broken[about] = (code, at)

    # -- how often ----------------------------------------------------------------------------

    def _came_again(self, at: float, what: str, account: str, about: str) -> None:
        """Note the time since the same row or value came before."""
        key = (what, account, about)
        before = self._row_at.get(key)
        if before is not None and at - before > 0.5:
            self.rows[what].append(at - before)
        self._row_at[key] = at

    def _paced(self, at: float, what: str, request: str) -> None:
        pace = self.paces.get((what, request))
        if pace is None:
            self.paces[what, request] = Pace(at, at)
        else:
            pace.last_at = at
            pace.count += 1


def _number(text: str) -> float | None:
    value = float(text or "nan")
    return value if isfinite(value) and abs(value) < UNSET else None
