"""The contracts of a stream: their details, and legs without a conid."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import date, datetime, timedelta
from itertools import chain, islice
from typing import NamedTuple

from position_sync_dagster.domain.clock import A_DAY, NEVER, Clock, elapsed, utc_now
from position_sync_dagster.domain.contract_match import (
    contract_mismatch,
    matching_contracts,
    problem_of,
)
from position_sync_dagster.domain.exchange_time import TradingHours, may_trade, parse_trading_hours
from position_sync_dagster.domain.instrument import (
    ContractDetails,
    DetailsByConid,
    contract_name,
)
from position_sync_dagster.domain.leg import ActiveContract, UnresolvedLeg
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.lake.contracts import ContractsTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.lake.strategy_registry import StrategyRegistry
from position_sync_dagster.sync.stream.ownership import Ownership

logger = logging.getLogger(__name__)

# Delays before contract details, or a line without them, are requested again: an expired option
# has none any more (nautilus_trader pull/3305).
DETAILS_AGAIN = Backoff(first_s=60.0, longest_s=14_400.0)


# Number of conids fetched per step in the background. The details that lines need are fetched at
# once.
CHUNK = 10

# Number of details per commit when they are fetched in the background; fewer in the last one.
STORED_AT_ONCE = 500

# Minimum time between two requests for the trading hours of a contract whose listed days are over.
# The gateway lists a few days ahead.
HOURS_AGAIN = timedelta(hours=1)

# Details of contracts that expired longer ago are not read at the start.
EXPIRED_KEPT = timedelta(days=30)


class _NotGiven(NamedTuple):
    """A contract of which the gateway gave no details when it was last asked.

    Attributes:
        refusals: How often it said that it knows no such contract.
        asked_at: When it was last asked; NEVER: it may be asked again at once.
    """

    refusals: int
    asked_at: datetime


@dataclass(eq=False, repr=False)
class ContractCache:
    """Contract details in memory: of legs, and of each contract that may still be held.

    Stored details may be older than a change of the contract, as a new symbol. If they contradict
    a leg, they are fetched again before that counts.

    Args:
        table: Keeps the details across processes. Without it each process fetches them.
        clock: The current time, for trading hours.

    Attributes:
        mismatches: What is wrong with the legs that do not match the contract of their conid.
        matching: The legs whose description matches the contract of their conid, and those whose
            contract details are not known yet, or are to be fetched again first.
        version: The number of changes of these legs.
    """

    table: ContractsTable | None
    _: KW_ONLY
    clock: Clock = utc_now

    def __post_init__(self) -> None:
        self._known: DetailsByConid = {}  # stored before, or given by the gateway
        self._not_given: dict[int, _NotGiven] = {}
        self._wanted: dict[int, None] = {}  # to be fetched in this order
        self._unstored: DetailsByConid = {}  # given, and not in the table yet
        # Contracts that were asked for, or given unasked, since the start: no stored details count.
        self._asked: set[int] = set()
        # Contracts whose stored details contradict a leg, and were not fetched since the start.
        self._doubted: set[int] = set()
        self._legs: tuple[ActiveContract, ...] = ()  # the active ones, as `set_legs` got them
        self.mismatches: dict[tuple[str, str | None, int], str] = {}
        self.matching: tuple[ActiveContract, ...] = ()
        self.version = 0

    def set_legs(self, legs: Iterable[ActiveContract]) -> None:
        """Record the active legs, and compare new ones with their contracts."""
        legs = tuple(legs)
        if legs != self._legs:
            for leg in legs:  # for a leg added since the refusal, requests begin anew
                not_given = self._not_given.get(leg.conid)
                if not_given is not None and not_given.asked_at < leg.added_at:
                    del self._not_given[leg.conid]
            self._legs = legs
            self._compare()

    async def load(self, legs: Collection[ActiveContract]) -> None:
        """Read the details of legs and of contracts that have not expired long ago.

        Raises:
            LakeError: The table cannot be read.
        """
        if self.table is not None:
            since = (self.clock() - EXPIRED_KEPT).date()
            self._keep(await offload(self.table.unexpired, since, {leg.conid for leg in legs}))
        self.set_legs(legs)

    def known(self, conid: int) -> ContractDetails | None:
        """Return the details of a contract, if they are known."""
        return self._known.get(conid)

    def of(self, conids: Iterable[int]) -> DetailsByConid:
        """Return the details of these contracts that are known."""
        return {conid: self._known[conid] for conid in conids if conid in self._known}

    def name(self, conid: int) -> str:
        """Return a contract as a trader writes it; its conid where nothing else is known of it."""
        details = self._known.get(conid)
        if details is not None:
            return contract_name(details)
        named = [contract_name(leg) for leg in self._legs if leg.conid == conid]
        return next(filter(None, named), f"conid {conid}")

    def magnifier(self, conid: int) -> int | None:
        """Return what a quoted price is divided by, as 100 for one in cents; None: not known."""
        details = self._known.get(conid)
        return details.price_magnifier if details else None

    def hours(self, conid: int) -> TradingHours | None:
        """Return when a contract trades; None if unknown."""
        details = self._known.get(conid)
        if details is None:
            return None
        return parse_trading_hours(details.trading_hours, details.time_zone)

    def session_open(self, conid: int) -> bool:
        """Return whether a trading session of the contract is open; True if unknown."""
        return may_trade(self.hours(conid), self.clock())

    def available(self, conids: Iterable[int]) -> set[int]:
        """Return the conids whose details need not be fetched."""
        return (self._known.keys() & conids) - self._doubted

    async def details(self, connection: GatewayConnection, conids: Iterable[int]) -> DetailsByConid:
        """Return the details of the conids; fetch unknown ones from the gateway.

        A conid that the gateway does not know is left out. One of which it gave none before
        (`_not_given`) is fetched again in the background alone: the caller would wait for timeouts.
        """
        wanted = set(conids)
        missing = wanted - self.available(wanted) - self._not_given.keys()
        if missing:
            await self._fetch(connection, missing)
        return self.of(wanted)

    def want(self, conids: Iterable[int], *, first: bool = False) -> None:
        """Add conids whose details are to be fetched in the background, if they are missing.

        Args:
            first: Whether they are fetched before the others.
        """
        wanted = dict.fromkeys(filter(self._is_to_fetch, conids))
        if first and wanted:  # nearly never: this copies the others, which may be thousands
            self._wanted = wanted | self._wanted
        else:
            self._wanted.update(wanted)

    def definitions_restored(self) -> None:
        """Request details soon that the gateway did not give: it knows contracts again."""
        for conid, not_given in self._not_given.items():
            self._not_given[conid] = not_given._replace(asked_at=NEVER)

    async def fetch_due(self, connection: GatewayConnection, streamed: Iterable[int]) -> None:
        """Fetch the details of the next few contracts, and store what has been fetched.

        First come details that contradict a leg, then wanted ones, and those of streamed
        contracts whose trading hours have no listed days left.

        Raises:
            LakeError: The table cannot be written; the same details are due again.
        """
        to_fetch = filter(self._is_to_fetch, chain(self._doubted, self._wanted))
        due = list(dict.fromkeys(islice(to_fetch, CHUNK)))
        due = due or list(islice(filter(self._hours_are_due, streamed), CHUNK))
        if due:
            await self._fetch(connection, due)

        if not due or len(self._unstored) >= STORED_AT_ONCE:
            await self.store()

    async def store(self) -> None:
        """Store the details that were fetched since they were last stored.

        Raises:
            LakeError: The table cannot be written; the same details are due again.
        """
        stored = dict(self._unstored)
        if self.table is None or not stored:
            return

        await offload(self.table.put, list(stored.values()))
        # Details that came meanwhile are newer.
        for conid, details in stored.items():
            if self._unstored.get(conid) is details:
                del self._unstored[conid]

    def take(self, given: DetailsByConid) -> None:
        """Keep details of the gateway; they are stored in place of older ones."""
        # They are not stored ones, which may be old: what differs of a leg counts.
        self._asked |= given.keys()
        if self.table is not None:
            self._unstored |= given
        self._keep(given)

    def _compare(self) -> None:
        """Compare the legs with their contracts, and log new mismatches."""
        before = self.mismatches
        differing = [
            (leg, difference)
            for leg in self._legs
            if (difference := contract_mismatch(leg, self._known.get(leg.conid)))
        ]
        # Stored details may be old: until a contract was asked for since the start of the stream,
        # a difference is a doubt.
        self._doubted = {leg.conid for leg, _ in differing} - self._asked
        self.mismatches = {
            leg.key: f"{contract_name(leg)} of strategy {leg.strategy_id} is not streamed: {text}"
            for leg, text in differing
            if leg.conid in self._asked
        }
        for key in self.mismatches.keys() - before.keys():
            logger.warning("the leg %s. Correct the leg.", self.mismatches[key])

        matching = tuple(leg for leg in self._legs if leg.key not in self.mismatches)
        if matching != self.matching:
            self.matching = matching
            self.version += 1

    def _keep(self, details: DetailsByConid) -> None:
        """Keep details in memory, and compare the legs if some are of theirs."""
        self._known |= details
        for conid in details:
            self._not_given.pop(conid, None)

        if any(leg.conid in details for leg in self._legs):
            self._compare()

    async def _fetch(self, connection: GatewayConnection, conids: Collection[int]) -> None:
        """Fetch details, and record for which contracts the gateway gave none.

        Only its word that it knows no such contract is a refusal, which makes the wait for the next
        request longer. Without an answer, or with one that cannot be read, the wait is the last one
        again, or the first. A leg that differs from stored details (`_doubted`) counts as different
        once they were asked for (`_asked`), whatever the answer.
        """
        given = await connection.details(conids)
        now = self.clock()
        for conid in set(conids) - given.keys():
            before = self._not_given.get(conid, _NotGiven(0, now))
            refusals = before.refusals + (conid in connection.unknown)
            self._not_given[conid] = _NotGiven(refusals, now)

        for conid in given:
            self._wanted.pop(conid, None)
        self._asked.update(conids)
        self.take(given)
        # Also where none was given: a leg that differs from the stored ones counts now.
        if self._doubted.intersection(conids):
            self._compare()

    def _is_to_fetch(self, conid: int) -> bool:
        """Return whether to ask for details now that are unknown or in doubt."""
        return not self.available([conid]) and self._may_be_asked(conid)

    def _may_be_asked(self, conid: int) -> bool:
        """Return whether no wait is left from a request that brought no details."""
        not_given = self._not_given.get(conid)
        if not_given is None:
            return True
        wait = timedelta(seconds=DETAILS_AGAIN.delay_s(max(not_given.refusals, 1)))
        return elapsed(not_given.asked_at, self.clock()) >= wait

    def _hours_are_due(self, conid: int) -> bool:
        """Return whether to ask again for the hours of a contract that has not expired.

        The days that it listed are over, the answer is old, and no wait after a failure is left.
        """
        details = self._known.get(conid)
        hours = self.hours(conid)
        now = self.clock()
        if details is None or hours is None or hours.ends > now:
            return False
        is_old = elapsed(details.seen_at, now) >= HOURS_AGAIN
        return is_old and not has_expired(details.expiry, now) and self._may_be_asked(conid)


def has_expired(expiry: date | None, now: datetime) -> bool:
    """Return whether a contract has expired, in any time zone."""
    return expiry is not None and expiry < (now - A_DAY).date()


# Delays before a leg that fits no contract, or several, is looked up again: new contracts are
# listed every day.
LOOK_UP = Backoff(first_s=60.0, longest_s=3600.0)

# Without an answer, a leg waits no longer than after so many attempts: the gateway may be back
# soon.
UNANSWERED = 3

# Maximum number of legs looked up at once; the gateway answers contract details one by one.
ASKED_AT_ONCE = 10


@dataclass(eq=False, repr=False)
class LegResolver:
    """Finds the one contract that each leg without a conid describes, and stores its conid.

    If a description fits no contract or several, that is stored as the leg's problem, with the
    candidates; none is chosen. Without an answer, nothing changes.

    Args:
        contracts: Stores the details of the contracts that were found.
    """

    ownership: Ownership
    registry: StrategyRegistry
    contracts: ContractCache

    def __post_init__(self) -> None:
        # How often each membership was looked up, and when that is due again: a new one at once.
        self._attempts: dict[object, tuple[int, float]] = {}

    async def resolve_due(self, connection: GatewayConnection) -> None:
        """Look up the legs that are due, at most `ASKED_AT_ONCE`, and store what was found.

        Raises:
            LakeError: A table cannot be used.
            LeaseLostError: The login belongs to another process now.
        """
        now_s = self.ownership.monotonic()
        legs = {_membership(leg): leg for leg in self.registry.unresolved}
        # Those of legs that are found, or gone, are forgotten.
        self._attempts = {key: self._attempts.get(key, (0, 0.0)) for key in legs}
        due = [legs[key] for key, (_tries, at_s) in self._attempts.items() if at_s <= now_s]
        await self.resolve(connection, due[:ASKED_AT_ONCE])

    def definitions_restored(self) -> None:
        """Look up every leg that waits: the gateway knows contracts again."""
        for membership, (tries, _at_s) in self._attempts.items():
            self._attempts[membership] = (tries, 0.0)

    async def resolve(self, connection: GatewayConnection, legs: Sequence[UnresolvedLeg]) -> None:
        """Look up the contracts of these legs, and store what was found.

        Raises:
            LakeError: A table cannot be used.
            LeaseLostError: The login belongs to another process now.
        """
        answers = await asyncio.gather(*(look_up(connection, leg) for leg in legs))

        details: DetailsByConid = {}
        # What is new of a leg: its conid, or its problem.
        findings: list[tuple[UnresolvedLeg, int | str]] = []
        for leg, answer in zip(legs, answers, strict=True):
            self._count_attempt(leg, is_answered=answer is not None)
            if isinstance(answer, ContractDetails):
                details[answer.conid] = answer
                findings.append((leg, answer.conid))
            elif answer is not None and answer != leg.problem:
                findings.append((leg, answer))

        if findings:
            self.ownership.check()
            self.contracts.take(details)
            await offload(self.registry.sync.settle, findings)
        for leg, finding in findings:
            if isinstance(finding, str):
                logger.warning("%s", not_streamed(leg, finding))

    def _count_attempt(self, leg: UnresolvedLeg, *, is_answered: bool) -> None:
        """Set when a leg is looked up again: later each time.

        Without an answer the wait stays short (`UNANSWERED`): nothing was said of the leg.
        """
        key = _membership(leg)
        before, _at_s = self._attempts.get(key, (0, 0.0))
        tries = before + 1 if is_answered else min(before + 1, UNANSWERED)
        self._attempts[key] = (tries, self.ownership.monotonic() + LOOK_UP.delay_s(tries))


def not_streamed(leg: UnresolvedLeg, problem: str) -> str:
    """Return that a leg has no line, and why, for people."""
    return f"{leg.described} of strategy {leg.strategy_id} is not streamed: {problem}"


def _membership(leg: UnresolvedLeg) -> object:
    """Return what identifies the membership: a leg that is added again has a new one."""
    return leg.key, leg.added_at


async def look_up(
    connection: GatewayConnection, leg: UnresolvedLeg
) -> ContractDetails | str | None:
    """Return the contract that a leg describes, or the problem; None without an answer.

    For an expired contract, the gateway is not asked.
    """
    if has_expired(leg.expiry, utc_now()):
        return f"It expired on {leg.expiry}, and an expired contract has no details any more."

    answer = await connection.candidates(leg)
    if answer is None:
        return None
    matching = matching_contracts(leg, answer)
    if len(matching) == 1:
        return matching[0]
    return problem_of(leg, matching, answer)
