"""The lines of a stream on its connection: the set of lines decides, and the gateway is asked here.

The set is `domain/login_lines.py`; the requests are those of `gateway/market_data.py`.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.leg import few
from position_sync_dagster.domain.line import QUEUED_TEXT, Denial
from position_sync_dagster.domain.line_allocation import Demand, LineLimit, demands
from position_sync_dagster.domain.login_lines import LoginLines
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway import codes
from position_sync_dagster.gateway.codes import (
    DELAYED_TYPES,
    NOT_PERMITTED,
    GatewayCode,
)
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.market_data import MarketDataRequests, Refusal
from position_sync_dagster.sync.stream import contracts
from position_sync_dagster.sync.stream.contracts import ContractCache
from position_sync_dagster.sync.stream.ownership import Ownership

logger = logging.getLogger(__name__)

# Shortest time that a line is held, in seconds: a leg that comes and goes costs two requests
# of the 50 that a gateway takes in a second.
MIN_HOLD_S = 5.0

# How long a limit that was learned from code 101 counts, before all lines are tried again.
LIMIT_WAIT = Backoff(first_s=60.0, longest_s=900.0)

# The number of legs and lines with a problem that the session's detail names.
CONTRACTS_NAMED = 3


@dataclass(eq=False, repr=False)
class StreamLines:
    """Requests the lines that the set of the login chooses, and records what the gateway says.

    Attributes:
        login: The set of the lines.
        underlyings: Of which underlyings the price is needed: conid → by how many options. Their
            details are in memory: no leg waits while details are fetched.
    """

    ownership: Ownership
    contracts: ContractCache

    def __post_init__(self) -> None:
        settings = self.ownership.settings
        # What the demand was computed of; computed again when it is another one.
        self._wanted_as_of: tuple[object, ...] = ()
        self.underlyings: Mapping[int, int] = {}
        limit = LineLimit(
            configured=settings.max_lines, reserve=settings.reserved_lines, wait=LIMIT_WAIT
        )
        self.login = LoginLines(
            session_open=self.contracts.session_open,
            limit=limit,
            min_hold_s=MIN_HOLD_S,
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
        return self.login.line(conid).counted(connection.lines.quote(conid))

    # On which connection.

    def attach(self, requests: MarketDataRequests) -> None:
        """Follow a new connection; lines and denials of the previous one have ended.

        The permissions may differ after a new log-in. The line limit stays the same.
        """
        self.login.clear()
        self._wanted_as_of = ()  # the demand is computed again
        requests.on_refusal.append(self.refused)

    def detach(self, requests: MarketDataRequests) -> None:
        """Release the lines held here."""
        for conid in self.held:
            self._cancel(requests, conid)
        requests.on_refusal.remove(self.refused)

    # What is wanted.

    def update(self, connection: GatewayConnection) -> None:
        """Record which holdings and legs need a line now.

        A line that was denied because its contract had no details has another chance once they have
        come. A limit of lines that was learned ends when its time is over.
        """
        now_s = self.ownership.monotonic()
        # Denied without a code of the gateway (None): those whose contract had no details.
        waiting = self.login.denied_with(None, now_s)
        self.contracts.want(waiting, first=True)
        self.login.lift(None, now_s, only=self.contracts.available(waiting))

        self.login.limit = self.login.limit.at(now_s)
        self._update_wanted(connection)

    def _update_wanted(self, connection: GatewayConnection) -> None:
        """Compute the demand for lines again, if holdings opened or closed or a leg changed."""
        book = connection.feed.book
        as_of = (book.moves, self.contracts.version, self.underlyings)
        if as_of == self._wanted_as_of:
            return

        wanted = {
            conid: Demand(conid=conid, options=options)
            for conid, options in self.underlyings.items()
        }
        of_legs = demands(
            book.of_conid, self.contracts.matching, sec_types=self.ownership.settings.sec_types
        )
        # What is a leg and an underlying is wanted as a leg.
        self.login.wanted = wanted | {demand.conid: demand for demand in of_legs}
        self._wanted_as_of = as_of

    def chosen(self, connection: GatewayConnection) -> frozenset[int]:
        """Return the conids that should hold a line now; `allocate` asks for them."""
        return self.login.chosen(connection.lines.in_use, self.ownership.monotonic())

    def are_due(self, connection: GatewayConnection) -> bool:
        """Return whether the lines must change, as when a shortest hold or a denial ended."""
        due_for_live = self.login.due_for_live(self.ownership.monotonic())
        return bool(due_for_live) or self.chosen(connection) != self.held

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
                    wait=contracts.DETAILS_AGAIN,
                ),
            )

        requests = connection.lines
        chosen = self.chosen(connection)  # a line may have been refused in the meantime
        now_s = self.ownership.monotonic()
        for conid in self.held - chosen:
            self._cancel(requests, conid)

        # Lines with delayed data whose denial is over: live data again.
        for conid in self.login.due_for_live(now_s):
            requests.switch(conid)
            self.login.put(conid, self.login.line(conid).requested(now_s))

        denials = self.login.denials(now_s)
        for conid in self.login.in_order((chosen - self.held) & details.keys()):
            # Chosen in spite of its denial, which permits delayed data.
            is_delayed = conid in denials
            requests.subscribe(details[conid], delayed=is_delayed)
            self.login.put(conid, self.login.line(conid).requested(now_s, delayed=is_delayed))
        return self.of_legs

    def renew(self, connection: GatewayConnection) -> None:
        """Cancel lines that seem dead, and request them again with new ids."""
        for conid in self.login.take_due_for_renewal(self.ownership.monotonic()):
            connection.lines.switch(conid, delayed=self.login.line(conid).delayed)

    def _cancel(self, requests: MarketDataRequests, conid: int) -> None:
        """Cancel a line, and record that it is held no more."""
        self.login.put(conid, self.login.line(conid).cancelled())
        requests.cancel(conid)

    # What the gateway says.

    def doubt(self, conid: int, reason: str) -> None:
        """Request a line again that may be dead, or only quiet."""
        self.login.put(conid, self.login.line(conid).doubted(self.ownership.monotonic(), reason))

    def reopened(self) -> None:
        """Record that the connection opens again: every line has to tick before it counts."""
        now_s = self.ownership.monotonic()
        self.login.happened(lambda line: line.reopened(now_s))

    def interrupted(self, cause: str) -> None:
        """Record that a farm broke or connectivity was lost: earlier quotes no longer count."""
        now_s = self.ownership.monotonic()
        at = self.ownership.clock()
        reason = f"the line has not ticked since {cause}"
        self.login.happened(lambda line: line.interrupted(now_s, at, reason))

    def restored(self) -> None:
        """Record that data are expected again: each line must tick soon.

        Lines that the gateway refused because their farm was away are requested again.
        """
        now_s = self.ownership.monotonic()
        self.login.happened(lambda line: line.restored(now_s))
        self.login.lift(GatewayCode.CUT_BY_FARM, now_s)

    def definitions_restored(self) -> None:
        """Request lines again of what the gateway did not know: it knows contracts again."""
        self.login.lift(GatewayCode.NO_CONTRACT, self.ownership.monotonic())

    def refused(self, refusal: Refusal) -> None:
        """Record a refusal: the line limit is lower, or a conid has no market data.

        Where live data are not permitted, a leg may have delayed data meanwhile, unless these are
        what was refused. An underlying may not: greeks are computed by its present price.
        """
        conid = refusal.conid
        line = self.login.line(conid)
        if not line.held:  # requested by another user of the connection
            return

        now_s = self.ownership.monotonic()
        text = f"{refusal.code} {refusal.text}"
        self.login.put(conid, line.ended(now_s, f"the gateway ended the line: {text}"))
        if refusal.code == GatewayCode.TOO_MANY_LINES:
            self.login.limit = self.login.limit.refused(refusal.in_use, now_s)
            return

        may_be_delayed = self.ownership.settings.delayed_fallback and refusal.code in NOT_PERMITTED
        was_delayed = refusal.market_data_type in DELAYED_TYPES
        is_leg = not self.login.is_underlying(conid)
        denial = Denial(
            reason=text,
            code=refusal.code,
            wait=codes.RETRY_WAITS.get(refusal.code, codes.OTHER_RETRY_WAIT),
            may_be_delayed=may_be_delayed and not was_delayed and is_leg,
        )
        self._deny(conid, denial)

    def _deny(self, conid: int, denial: Denial) -> None:
        """Record a refusal of live data, and log it: the first of several in a row as a warning."""
        denial = self.login.deny(conid, denial, self.ownership.monotonic())
        level = logging.WARNING if denial.times == 1 else logging.INFO
        has = "streams delayed data" if denial.may_be_delayed else "has no market data"
        logger.log(level, "%s %s: %s", self.contracts.name(conid), has, denial.reason)

    # For people.

    def problems(self) -> list[str]:
        """Return the problems of legs and lines, for the detail of the session.

        First the legs that are not the contract of their conid, then each kind of refusal, then the
        lines that seem dead; of each a few names.
        """
        denials = self.login.denials(self.ownership.monotonic())
        # First those without any data; then by conid, so that the text stays the same.
        refused = sorted(
            denials.keys() & self.login.wanted,
            key=lambda conid: (denials[conid].may_be_delayed, conid),
        )
        texts = [few(self.contracts.mismatches.values(), CONTRACTS_NAMED, "; ")]
        for conids in grouped(lambda conid: denials[conid].cause, refused).values():
            texts += self._refusal_texts(conids, denials)
        for reason, conids in self.login.suspects().items():
            texts.append(f"requested again: {self._names(conids)}: {reason}")
        return [text for text in texts if text]

    def _refusal_texts(self, conids: list[int], denials: Mapping[int, Denial]) -> list[str]:
        """Return what lines that were refused for one reason mean, and which they are.

        Args:
            conids: Their code, and whether they may have delayed data, is the same.
            denials: conid → the refusal, of these and others.
        """
        first = denials[conids[0]]
        underlyings = sum(map(self.login.is_underlying, conids))
        legs = len(conids) - underlyings
        counted = [
            _count(legs, "leg", "with delayed data" if first.may_be_delayed else QUEUED_TEXT),
            _count(underlyings, "underlying", "without a price"),
        ]

        what = "No market data"
        why = first.reason if first.code is None else f"IB {first.reason}"
        if first.code == GatewayCode.COMPETING_SESSION:
            what = "Another session took your lines"
            why = f"IB {first.code}"
        since = self._moment(min(denials[conid].since_s for conid in conids))
        again_at = self._moment(min(denials[conid].until_s for conid in conids))
        return [
            f"{what}: {', '.join(filter(None, counted))}, since {since} ({why})",
            f"{self._names(conids)}, requested again at {again_at}",
        ]

    def _moment(self, at_s: float) -> str:
        """Return a time of the monotonic clock as text, with its day if that is another one."""
        now = self.ownership.clock()
        at = now + timedelta(seconds=at_s - self.ownership.monotonic())
        if at.date() == now.date():
            return f"{at:%H:%M} UTC"
        return f"{at:%Y-%m-%d %H:%M} UTC"

    def _names(self, conids: Iterable[int]) -> str:
        """Return the first contracts by name, each name once."""
        return few(dict.fromkeys(map(self.contracts.name, conids)), CONTRACTS_NAMED)


def _count(number: int, noun: str, state: str) -> str:
    """Return a number of things in a state: "20 legs now by the queue"; empty without any."""
    if not number:
        return ""

    return f"{number} {noun}{'s' if number > 1 else ''} {state}"
