"""The market data lines of a stream: who holds one, and what the gateway is asked for."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from position_sync_dagster.domain import login_lines
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway import codes
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.subscriptions import MarketDataLines, Refusal
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
# Delays before a new request for a line that never ticked after a code of unknown meaning.
UNKNOWN_RETRY_WAIT = Backoff(first_s=60.0, longest_s=14_400.0)

# Delays before a refused line is requested again. A competing session (10197) and a farm outage
# (10182) may end at any moment, and one line is requested for all; a missing subscription is seldom
# bought.
OTHER_RETRY_WAIT = Backoff(first_s=1800.0, longest_s=14_400.0)

# Delays before another attempt to get more lines than the limit that was learned from code 101.
PROBE_WAIT = Backoff(first_s=60.0, longest_s=900.0)

# What lifts a refusal with a code when it arrives.
AWAITED: dict[int, login_lines.Awaited] = {
    codes.GatewayCode.NO_CONTRACT: login_lines.Awaited.DEFINITIONS,
    codes.GatewayCode.CUT_BY_FARM: login_lines.Awaited.MARKET_DATA,
}

# The kind of market data to request, by whether it is delayed; None: that of the settings.
KINDS = {False: None, True: codes.MarketDataType.DELAYED}


@dataclass(eq=False, repr=False)
class LineManager:
    """Holds the lines that the allocation chooses, and learns the line limit from refusals.

    Attributes:
        login: The record of each line.
    """

    context: OwnerContext
    contracts: ContractCache

    def __post_init__(self) -> None:
        self._wanted_as_of: tuple[object, ...] | None = None
        self._underlyings: tuple[int, ...] = ()
        self._connected: MarketDataLines | None = None
        self.login = login_lines.LoginLines(
            silence_s=self.context.settings.line_silence_s,
            session_open=self.contracts.session_open,
            limit=login_lines.LineLimit(
                configured=self.context.settings.max_lines,
                reserve=self.context.settings.reserved_lines,
                wait=PROBE_WAIT,
            ),
            min_hold_s=self.context.settings.min_hold_s,
        )

    @property
    def held(self) -> frozenset[int]:
        """The conids that hold a line."""
        return frozenset(self.login.held)

    @property
    def of_legs(self) -> frozenset[int]:
        """The conids that hold a line, without those that hold it as an underlying alone."""
        return frozenset(conid for conid in self.login.held if not self._is_underlying(conid))

    def counted(self, connection: GatewayConnection, conid: int) -> Quote | None:
        """Return what counts now of the market data of a line."""
        quote = connection.lines.quote(conid)
        return self.login.line(conid).counted(quote, self.context.clock())

    def want_underlyings(self, conids: Sequence[int]) -> None:
        """Request lines for these underlyings, in this order, as far as no leg needs the lines.

        Args:
            conids: Contracts whose details are in memory: no leg waits while details are fetched.
        """
        self._underlyings = tuple(conids)

    def follow(self, connection: GatewayConnection) -> None:
        """Advance the time, and record which holdings and legs need a line now."""
        now = self.context.monotonic()
        waiting = self.login.waiting_for(login_lines.Awaited.DETAILS, now)
        self.contracts.want(waiting, first=True)
        self.login.arrived(self.contracts.available(set(waiting)), now)
        self.login.limit = self.login.limit.probed(connection.lines.in_use, now)
        self._update_wanted(connection)

    def chosen(self, connection: GatewayConnection) -> frozenset[int]:
        """Return the conids that should hold a line, as known before the requests."""
        return self.login.chosen(connection.lines.in_use, self.context.monotonic())

    def are_due(self, connection: GatewayConnection) -> bool:
        """Return whether the lines must change, because a hold, a denial or a wait ended."""
        if self.chosen(connection) != self.held:
            return True
        return bool(self.login.due_for_live(self.context.monotonic()))

    async def allocate(self, connection: GatewayConnection) -> frozenset[int]:
        """Subscribe and cancel lines as the allocation chooses.

        Returns:
            The conids that hold a line of a leg afterwards.
        """
        lines, login = connection.lines, self.login
        requested = self.chosen(connection)
        details = await self.contracts.details(connection, requested)
        self._update_wanted(connection)  # a leg may turn out to be another contract
        for conid in sorted(requested - details.keys() - self.held):
            reason, awaits = "the gateway gave no contract details", login_lines.Awaited.DETAILS
            self._deny(conid, login_lines.Denial(reason=reason, wait=REFETCH, awaits=awaits))
        chosen = self.chosen(connection)  # a line may have been refused in the meantime
        now = self.context.monotonic()
        for conid in self.held - chosen:
            login.line(conid).cancelled()
            lines.cancel(conid)
        for conid in login.due_for_live(now):
            lines.switch(conid)
            login.line(conid).requested(now)
        held, denials = self.held, login.denials(now)
        for conid in sorted(
            (chosen - held) & details.keys(), key=lambda c: login_lines.rank(login.wanted[c], held)
        ):
            delayed = conid in denials
            lines.subscribe(details[conid], market_data_type=KINDS[delayed])
            login.line(conid).requested(now, delayed=delayed)
        return self.of_legs

    def renew(self, connection: GatewayConnection) -> None:
        """Cancel lines that seem dead, and request them again with new ids."""
        for conid in self.login.take_due_for_renewal(self.context.monotonic()):
            kind = KINDS[self.login.line(conid).delayed]
            connection.lines.switch(conid, market_data_type=kind)

    def interrupted(self, cause: str) -> None:
        """Record that a farm broke or connectivity was lost: earlier quotes no longer count."""
        reason = f"the line has not ticked since {cause}"
        self.login.interrupted(self.context.clock(), self.context.monotonic(), reason)

    def restored(self) -> None:
        """Record that data are expected again: each line must tick soon."""
        self.login.restored(self.context.monotonic())
        self.arrived(login_lines.Awaited.MARKET_DATA)

    def arrived(self, awaited: login_lines.Awaited) -> None:
        """Record that what some refusals wait for is there."""
        now = self.context.monotonic()
        self.login.arrived(self.login.waiting_for(awaited, now), now)

    def refused(self, refusal: Refusal) -> None:
        """Record a refusal: the line limit is lower, or a conid has no market data."""
        line, now = self.login.line(refusal.conid), self.context.monotonic()
        if not line.held or self._connected is None:
            return
        text = f"{refusal.code} {refusal.text}"
        line.ended(now, f"the gateway ended the line: {text}")
        if refusal.code == codes.GatewayCode.TOO_MANY_LINES:
            self.login.limit = self.login.limit.refused(self._connected.in_use, now)
            return
        fallback = (
            self.context.settings.delayed_fallback
            and not self._is_underlying(refusal.conid)
            and refusal.code in codes.NOT_PERMITTED
            and refusal.market_data_type not in codes.DELAYED_TYPES
        )
        usual = OTHER_RETRY_WAIT if refusal.code in codes.ENDS_LINE else UNKNOWN_RETRY_WAIT
        denial = login_lines.Denial(
            reason=text,
            wait=RETRY_WAITS.get(refusal.code, usual),
            delayed=fallback,
            of_login=refusal.code in codes.REFUSES_LOGIN,
            awaits=AWAITED.get(refusal.code),
        )
        self._deny(refusal.conid, denial)

    def problems(self) -> list[str]:
        """Return the problems of legs and lines, the first few of each kind."""
        now = self.context.monotonic()
        denials = self.login.denials(now)
        found = [(conid, denial) for conid, denial in denials.items() if conid in self.login.wanted]
        texts = [*self.contracts.mismatches.values()]
        for conid, denial in sorted(found, key=lambda pair: (pair[1].delayed, pair[0])):
            again = f"{self.context.clock() + timedelta(seconds=denial.until_s - now):%H:%M} UTC"
            texts.append(f"{self._text_of(conid, denial)} (requested again at {again})")
        more = [f"and {len(texts) - 3} more"] if len(texts) > 3 else []
        return texts[:3] + more + self.login.problems()

    def attach(self, lines: MarketDataLines) -> None:
        """Follow a new connection; lines and denials of the previous one have ended.

        The permissions may differ after a new log-in. The line limit stays the same.
        """
        self.login.clear()
        self._wanted_as_of = None
        self._connected = lines
        lines.on_refusal.append(self.refused)

    def detach(self, lines: MarketDataLines) -> None:
        """Release the lines held here; a line that another streamer shares stays subscribed."""
        for conid in self.held:
            self.login.line(conid).cancelled()
            lines.cancel(conid)
        lines.on_refusal.remove(self.refused)

    def _update_wanted(self, connection: GatewayConnection) -> None:
        """Compute the demand for lines again, if holdings opened or closed or a leg changed."""
        book, contracts = connection.feed.book, self.contracts
        as_of = (book.moves, contracts.version, self._underlyings)
        if as_of != self._wanted_as_of:
            found = login_lines.demands(
                book.of_conid, contracts.matching, sec_types=self.context.settings.sec_types
            )
            of_options = {
                conid: login_lines.Demand(conid=conid, priority=place, of_options=True)
                for place, conid in enumerate(self._underlyings)
            }
            self.login.wanted = of_options | {demand.conid: demand for demand in found}
            self._wanted_as_of = as_of

    def _is_underlying(self, conid: int) -> bool:
        demand = self.login.wanted.get(conid)
        return demand is not None and demand.of_options

    def _deny(self, conid: int, denial: login_lines.Denial) -> None:
        denial = self.login.line(conid).deny(self.context.monotonic(), denial)
        self.login.share_refusals()
        level = logging.WARNING if denial.times == 1 else logging.INFO
        logger.log(level, "%s", self._text_of(conid, denial))

    def _text_of(self, conid: int, denial: login_lines.Denial) -> str:
        has = "streams delayed data" if denial.delayed else "has no market data"
        name = f"underlying {conid}" if self._is_underlying(conid) else str(conid)
        return f"{name} {has}: {denial.reason}"
