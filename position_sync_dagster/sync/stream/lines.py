"""The lines of a stream on its connection: the set of lines decides, and the gateway is asked here.

The set is `domain/login_lines.py`; the requests are those of `gateway/market_data.py`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from position_sync_dagster.domain.leg import few
from position_sync_dagster.domain.line import Awaited, Denial
from position_sync_dagster.domain.line_allocation import Demand, LineLimit, demands
from position_sync_dagster.domain.login_lines import LoginLines
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway import codes
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.market_data import MarketDataRequests, Refusal
from position_sync_dagster.sync.stream.contracts import REFETCH, ContractCache
from position_sync_dagster.sync.stream.ownership import OwnerContext

logger = logging.getLogger(__name__)

RETRY_WAITS: dict[int, Backoff] = {
    codes.GatewayCode.COMPETING_SESSION: Backoff(first_s=60.0, longest_s=600.0),
    codes.GatewayCode.CUT_BY_FARM: Backoff(first_s=30.0, longest_s=300.0),
    codes.GatewayCode.LINE_UNKNOWN: Backoff(first_s=5.0, longest_s=300.0),
    codes.GatewayCode.REQUEST_FAILED: Backoff(first_s=5.0, longest_s=300.0),
    codes.GatewayCode.NO_CONTRACT: Backoff(first_s=60.0, longest_s=14_400.0),
}

# Delays before a refused line is requested again. A competing session (10197) and a farm outage
# (10182) may end at any moment; a missing subscription is seldom bought.
OTHER_RETRY_WAIT = Backoff(first_s=1800.0, longest_s=14_400.0)

# Delays before another attempt to get more lines than the limit that was learned from code 101.
PROBE_WAIT = Backoff(first_s=60.0, longest_s=900.0)

# What lifts a refusal with a code when it arrives.
AWAITED: dict[int, Awaited] = {
    codes.GatewayCode.NO_CONTRACT: Awaited.DEFINITIONS,
    codes.GatewayCode.CUT_BY_FARM: Awaited.MARKET_DATA,
}

# The kind of market data to request, by whether it is delayed; None: that of the settings.
KINDS = {False: None, True: codes.MarketDataType.DELAYED}

# The number of legs and lines with a problem that the session's detail names.
NAMED = 3


@dataclass(eq=False, repr=False)
class StreamLines:
    """Requests the lines that the set of the login chooses, and records what the gateway says.

    Attributes:
        login: The set of the lines.
    """

    context: OwnerContext
    contracts: ContractCache

    def __post_init__(self) -> None:
        settings = self.context.settings
        self._wanted_as_of: tuple[object, ...] | None = None
        self._underlyings: Mapping[int, int] = {}
        self._requests: MarketDataRequests | None = None
        limit = LineLimit(
            configured=settings.max_lines, reserve=settings.reserved_lines, wait=PROBE_WAIT
        )
        self.login = LoginLines(
            silence_s=settings.line_silence_s,
            session_open=self.contracts.session_open,
            limit=limit,
            min_hold_s=settings.min_hold_s,
        )

    @property
    def held(self) -> frozenset[int]:
        """The conids that hold a line."""
        return frozenset(self.login.held)

    @property
    def of_legs(self) -> frozenset[int]:
        """The conids that hold a line, without those that hold it as an underlying alone."""
        return frozenset(conid for conid in self.login.held if not self.login.is_underlying(conid))

    def counted(self, connection: GatewayConnection, conid: int) -> Quote | None:
        """Return what counts now of the market data of a line."""
        quote = connection.lines.quote(conid)
        return self.login.line(conid).counted(quote)

    # On which connection.

    def attach(self, requests: MarketDataRequests) -> None:
        """Follow a new connection; lines and denials of the previous one have ended.

        The permissions may differ after a new log-in. The line limit stays the same.
        """
        self.login.clear()
        self._wanted_as_of = None
        self._requests = requests
        requests.on_refusal.append(self.refused)

    def detach(self, requests: MarketDataRequests) -> None:
        """Release the lines held here; a line that another streamer shares stays subscribed."""
        for conid in self.held:
            self._cancel(requests, conid)
        requests.on_refusal.remove(self.refused)

    # What is wanted.

    def want_underlyings(self, options: Mapping[int, int]) -> None:
        """Request lines for underlyings.

        Args:
            options: conid of the underlying → how many options need its price. Its details are in
                memory: no leg waits while details are fetched.
        """
        self._underlyings = options

    def follow(self, connection: GatewayConnection) -> None:
        """Advance the time, and record which holdings and legs need a line now."""
        now_s = self.context.monotonic()
        waiting = self.login.waiting_for(Awaited.DETAILS, now_s)
        self.contracts.want(waiting, first=True)
        self.login.arrived(Awaited.DETAILS, now_s, only=self.contracts.available(waiting))

        self.login.limit = self.login.limit.probed(connection.lines.in_use, now_s)
        self._update_wanted(connection)

    def _update_wanted(self, connection: GatewayConnection) -> None:
        """Compute the demand for lines again, if holdings opened or closed or a leg changed."""
        book = connection.feed.book
        as_of = (book.moves, self.contracts.version, self._underlyings)
        if as_of == self._wanted_as_of:
            return

        wanted = {}
        for conid, options in self._underlyings.items():
            wanted[conid] = Demand(conid=conid, options=options)
        sec_types = self.context.settings.sec_types
        for demand in demands(book.of_conid, self.contracts.matching, sec_types=sec_types):
            wanted[demand.conid] = demand
        self.login.wanted = wanted
        self._wanted_as_of = as_of

    def chosen(self, connection: GatewayConnection) -> frozenset[int]:
        """Return the conids that should hold a line, as known before the requests."""
        return self.login.chosen(connection.lines.in_use, self.context.monotonic())

    def are_due(self, connection: GatewayConnection) -> bool:
        """Return whether the lines must change, because a hold, a denial or a wait ended."""
        if self.chosen(connection) != self.held:
            return True
        return bool(self.login.due_for_live(self.context.monotonic()))

    # What the gateway is asked for.

    async def allocate(self, connection: GatewayConnection) -> frozenset[int]:
        """Subscribe and cancel lines as the allocation chooses.

        Returns:
            The conids that hold a line of a leg afterwards.
        """
        wanted = self.chosen(connection)
        details = await self.contracts.details(connection, wanted)
        self._update_wanted(connection)  # a leg may turn out to be another contract
        for conid in sorted(wanted - details.keys() - self.held):
            self._deny(
                conid,
                Denial(
                    reason="the gateway gave no contract details",
                    wait=REFETCH,
                    awaits=Awaited.DETAILS,
                ),
            )

        requests = connection.lines
        chosen = self.chosen(connection)  # a line may have been refused in the meantime
        now_s = self.context.monotonic()
        for conid in self.held - chosen:
            self._cancel(requests, conid)

        for conid in self.login.due_for_live(now_s):
            requests.switch(conid)
            line = self.login.line(conid)
            self.login.put(conid, line.requested(now_s))

        denials = self.login.denials(now_s)
        for conid in self.login.in_order((chosen - self.held) & details.keys()):
            delayed = conid in denials
            requests.subscribe(details[conid], market_data_type=KINDS[delayed])
            line = self.login.line(conid)
            self.login.put(conid, line.requested(now_s, delayed=delayed))
        return self.of_legs

    def renew(self, connection: GatewayConnection) -> None:
        """Cancel lines that seem dead, and request them again with new ids."""
        for conid in self.login.take_due_for_renewal(self.context.monotonic()):
            kind = KINDS[self.login.line(conid).delayed]
            connection.lines.switch(conid, market_data_type=kind)

    def _cancel(self, requests: MarketDataRequests, conid: int) -> None:
        line = self.login.line(conid)
        self.login.put(conid, line.cancelled())
        requests.cancel(conid)

    # What the gateway says.

    def doubt(self, conid: int, reason: str) -> None:
        """Request a line again that may be dead, or only quiet."""
        line = self.login.line(conid)
        self.login.put(conid, line.doubted(self.context.monotonic(), reason))

    def interrupted(self, cause: str) -> None:
        """Record that a farm broke or connectivity was lost: earlier quotes no longer count."""
        reason = f"the line has not ticked since {cause}"
        self.login.interrupted(self.context.clock(), self.context.monotonic(), reason)

    def restored(self) -> None:
        """Record that data are expected again: each line must tick soon."""
        self.login.restored(self.context.monotonic())
        self.arrived(Awaited.MARKET_DATA)

    def arrived(self, awaited: Awaited) -> None:
        """Record that what some refusals wait for is there."""
        self.login.arrived(awaited, self.context.monotonic())

    def refused(self, refusal: Refusal) -> None:
        """Record a refusal: the line limit is lower, or a conid has no market data."""
        conid = refusal.conid
        line = self.login.line(conid)
        if not line.held or self._requests is None:
            return

        now_s = self.context.monotonic()
        text = f"{refusal.code} {refusal.text}"
        reason = f"the gateway ended the line: {text}"
        self.login.put(conid, line.ended(now_s, reason))
        if refusal.code == codes.GatewayCode.TOO_MANY_LINES:
            self.login.limit = self.login.limit.refused(self._requests.in_use, now_s)
            return

        is_permission = refusal.code in codes.NOT_PERMITTED
        may_be_delayed = self.context.settings.delayed_fallback and is_permission
        was_delayed = refusal.market_data_type in codes.DELAYED_TYPES
        is_leg = not self.login.is_underlying(conid)
        denial = Denial(
            reason=text,
            wait=RETRY_WAITS.get(refusal.code, OTHER_RETRY_WAIT),
            delayed=may_be_delayed and not was_delayed and is_leg,
            awaits=AWAITED.get(refusal.code),
        )
        self._deny(conid, denial)

    def _deny(self, conid: int, denial: Denial) -> None:
        denial = self.login.deny(conid, denial, self.context.monotonic())
        level = logging.WARNING if denial.times == 1 else logging.INFO
        logger.log(level, "%s", self._text_of(conid, denial))

    # For people.

    def problems(self) -> list[str]:
        """Return the problems of legs and lines, the first few of each kind."""
        now_s = self.context.monotonic()
        denied = []
        for conid, denial in self.login.denials(now_s).items():
            if conid in self.login.wanted:
                denied.append((denial.delayed, conid, denial))
        denied.sort(key=lambda entry: entry[:2])

        texts = list(self.contracts.mismatches.values())
        for _delayed, conid, denial in denied:
            wait = timedelta(seconds=denial.until_s - now_s)
            again_at = self.context.clock() + wait
            text = self._text_of(conid, denial)
            texts.append(f"{text} (requested again at {again_at:%H:%M} UTC)")

        named = [few(texts, NAMED, "; ")] if texts else []
        return named + self.login.problems()

    def _text_of(self, conid: int, denial: Denial) -> str:
        has = "streams delayed data" if denial.delayed else "has no market data"
        name = f"underlying {conid}" if self.login.is_underlying(conid) else str(conid)
        return f"{name} {has}: {denial.reason}"
