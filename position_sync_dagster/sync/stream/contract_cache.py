"""Contract details: read from their table, fetched from the gateway, found for described legs."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime, timedelta
from itertools import islice, takewhile
from sys import intern
from typing import Any, NamedTuple

from position_sync_dagster.domain.clock import NEVER, Backoff, Clock, elapsed, has_come, utc_now
from position_sync_dagster.domain.instrument import (
    ContractDetails,
    TradingHours,
    parse_trading_hours,
)
from position_sync_dagster.domain.leg import (
    ActiveContract,
    UnresolvedLeg,
    contract_mismatch,
    matching_contracts,
    problem_of,
)
from position_sync_dagster.errors import LakeError, LeaseLostError
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.lake.broker_positions import ContractsTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.lake.strategy_registry import StrategyRegistry
from position_sync_dagster.sync.stream.ownership import OwnerContext, end_tasks

logger = logging.getLogger(__name__)

# Number of conids fetched per step in the background. The details that lines need are fetched at
# once.
CHUNK = 10

# Number of details per commit when they are fetched in the background; fewer in the last one.
STORED_AT_ONCE = 500

# Delay before the next attempt after a table could not be read or written.
AGAIN = timedelta(seconds=10)

# Minimum time between two requests for the trading hours of a contract whose listed days are over.
# The gateway lists a few days ahead.
HOURS_AGAIN = timedelta(hours=1)

# Delays before details are fetched again if the gateway did not give them.
REFETCH = Backoff(first_s=60.0, longest_s=14_400.0)

# Maximum number of requests for details, spread over eight hours: an expired option has no details
# any more (nautilus_trader pull/3305). The table remembers how often details were not given.
MOST_TIMES = 10

# If details were fetched within this time, a contradiction counts without another fetch.
FRESH = timedelta(minutes=1)

_LegKey = tuple[str, str | None, int]


class _NotGiven(NamedTuple):
    """Details that the gateway did not give.

    Attributes:
        times: How often it said that it knows no such contract.
        due_at: When they are fetched again, unless it has said so MOST_TIMES.
        refused_at: When it last said so.
    """

    times: int
    due_at: datetime
    refused_at: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        """Return whether they are fetched again now."""
        longest = timedelta(seconds=REFETCH.longest_s)
        return self.times < MOST_TIMES and has_come(self.due_at, now, longest)


SHARED = ("trading_hours", "valid_exchanges", "time_zone", "symbol", "trading_class", "exchange")

# Details of contracts that expired longer ago are not read at the start.
EXPIRED_KEPT = timedelta(days=30)


@dataclass(eq=False, repr=False)
class ContractCache:
    """Contract details in memory: of legs, and of each contract that may still be held.

    Stored details may be older than a change of the contract, as a new symbol. Details that
    contradict a leg are fetched again before that counts.

    Args:
        table: Keeps the details across processes. Without it each process fetches them.
        clock: The current time, for trading hours.

    Attributes:
        matching: The legs whose description matches the contract of their conid, and those whose
            contract details are not known yet, or are to be fetched again first.
        version: The number of changes of these legs.
    """

    table: ContractsTable | None
    _: KW_ONLY
    clock: Clock = utc_now

    def __post_init__(self) -> None:
        self._known: dict[int, ContractDetails] = {}
        self._without_details: dict[int, _NotGiven] = {}
        self._hours_at: dict[int, datetime] = {}
        self._task: asyncio.Task[None] | None = None
        self._wanted: dict[int, None] = {}
        self._unstored: dict[int, ContractDetails] = {}
        self._again_at = NEVER
        self._legs: tuple[ActiveContract, ...] = ()
        self._mismatches: dict[_LegKey, str] = {}
        # Contracts that contradict a leg, and whether their details were fetched since.
        self._doubts: dict[int, bool] = {}
        self.matching: tuple[ActiveContract, ...] = ()
        self.version = 0

    @property
    def mismatches(self) -> list[str]:
        """Legs that do not match the contract of their conid, each with the difference."""
        return [
            f"{conid} of strategy {strategy} is not streamed: {difference}"
            for (strategy, _account, conid), difference in sorted(
                self._mismatches.items(), key=lambda item: item[0][2]
            )
        ]

    def follow(self, legs: Iterable[ActiveContract]) -> None:
        """Record the active legs, and compare new ones with their contracts."""
        legs = tuple(legs)
        if legs != self._legs:
            self._legs = legs
            for leg in legs:  # for a leg added since the refusal, requests begin anew
                asked = self._without_details.get(leg.conid)
                if asked is not None and asked.refused_at and asked.refused_at < leg.added_at:
                    del self._without_details[leg.conid]
            self._compare({leg.conid for leg in legs})

    async def load(self, legs: Iterable[ActiveContract]) -> None:
        """Read the details of legs and of contracts that have not expired long ago.

        Raises:
            LakeError: The table cannot be read.
        """
        legs = tuple(legs)
        if self.table is not None:
            since = (self.clock() - EXPIRED_KEPT).date()
            conids = {leg.conid for leg in legs}
            self._keep(await offload(self.table.unexpired, since, conids))
            for conid, (times, at) in (await offload(self.table.not_given)).items():
                due_at = at + timedelta(seconds=REFETCH.delay_s(times))
                self._without_details[conid] = _NotGiven(times, due_at, at)
        self.follow(legs)

    def known(self, conid: int) -> ContractDetails | None:
        """Return the details of a contract, if they are known."""
        return self._known.get(conid)

    def of(self, conids: Iterable[int]) -> dict[int, ContractDetails]:
        """Return the details of these contracts that are known."""
        return {conid: self._known[conid] for conid in conids if conid in self._known}

    def magnifier(self, conid: int) -> int | None:
        """Return the price magnifier; None while the details are unknown."""
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
        hours = self.hours(conid)
        return hours is None or hours.is_open(self.clock()) is not False

    def missing(self, conids: Iterable[int]) -> set[int]:
        """Return the conids whose details have to be fetched."""
        wanted = set(conids)
        return wanted - self.available(wanted)

    def available(self, conids: Iterable[int]) -> set[int]:
        """Return the conids whose details need not be fetched."""
        return {c for c in conids if c in self._known and not self._is_doubted(c)}

    async def details(
        self, connection: GatewayConnection, conids: Iterable[int]
    ) -> dict[int, ContractDetails]:
        """Return the details of the conids; fetch unknown ones from the gateway.

        A conid that the gateway does not know is left out. One without an answer is fetched again
        in the background alone: the caller would wait for each timeout.
        """
        wanted = set(conids)
        missing = self.missing(wanted) - self._without_details.keys()
        if missing:
            await self._fetch(connection, missing)
            await self._store()
        return self.of(wanted)

    def want(self, conids: Iterable[int], *, first: bool = False) -> None:
        """Add conids whose details are to be fetched in the background, if they are missing.

        Args:
            first: Whether they are fetched before the others.
        """
        wanted = dict.fromkeys(filter(self._is_missing, conids))
        if first:
            self._wanted = wanted | self._wanted
        else:
            self._wanted.update(wanted)

    def definitions_restored(self) -> None:
        """Request details soon that the gateway did not give: it knows contracts again."""
        now = self.clock()
        for conid, asked in self._without_details.items():
            self._without_details[conid] = asked._replace(due_at=min(asked.due_at, now))

    def fetch_in_background(
        self, connection: GatewayConnection, *, streamed: Collection[int]
    ) -> None:
        """Fetch the details of the next few wanted conids, in a background task.

        First come details that contradict a leg, then wanted ones, and those of streamed
        contracts whose trading hours have no listed days left.
        """
        if self._task is not None and not self._task.done():
            return
        for conid in list(takewhile(lambda c: not self._is_missing(c), self._wanted)):
            del self._wanted[conid]
        now = self.clock()
        missing = [c for c, is_fetched in self._doubts.items() if not is_fetched][:CHUNK]
        missing = missing or list(islice(filter(self._is_missing, self._wanted), CHUNK))
        if not missing:
            missing = [c for c in streamed if self._hours_are_over(c, now)][:CHUNK]
            self._hours_at |= dict.fromkeys(missing, now)
        if missing:
            self._task = asyncio.create_task(self._fetch_some(connection, missing))
        elif self._unstored and has_come(self._again_at, now, AGAIN):
            self._task = asyncio.create_task(self._store())

    async def remember(self, details: Iterable[ContractDetails]) -> None:
        """Store fetched details in place of older ones."""
        self._take({one.conid: one for one in details})
        await self._store()

    async def close(self) -> None:
        """Cancel the background task."""
        await end_tasks(self._task)

    def _compare(self, conids: Collection[int]) -> None:
        """Compare the legs of these conids with their contracts, and log new mismatches."""
        before, found, differing = self._mismatches, dict[_LegKey, str](), set[int]()
        for leg in self._legs:
            difference = before.get(leg.key)
            if leg.conid in conids:
                details = self._known.get(leg.conid)
                difference = contract_mismatch(leg, details) if details is not None else None
                if details is not None and difference is not None:
                    differing.add(leg.conid)
                    text = f"strategy {leg.strategy_id} differs: {difference}"
                    difference = None if self._doubt(details, text) else difference
            if difference is not None:
                found[leg.key] = difference
        for conid in (self._doubts.keys() & set(conids)) - differing:
            del self._doubts[conid]
            logger.info("the details of contract %d agree with its legs again", conid)
        for strategy, account, conid in found.keys() - before.keys():
            logger.warning(
                "the leg %d of strategy %s is not streamed: %s. Correct the leg.",
                conid,
                strategy,
                found[strategy, account, conid],
            )
        self._mismatches = found
        matching = tuple(leg for leg in self._legs if leg.key not in found)
        if matching != self.matching:
            self.matching = matching
            self.version += 1

    def _take(self, found: Mapping[int, ContractDetails]) -> None:
        """Keep details of the gateway; they are stored in place of older ones."""
        if self.table is not None:
            self._unstored.update(found)
        self._keep(found)

    def _keep(self, found: Mapping[int, ContractDetails]) -> None:
        for conid, details in found.items():
            # Thousands of contracts share the few texts.
            texts: dict[str, Any] = {
                name: intern(text) for name in SHARED if (text := getattr(details, name))
            }
            self._known[conid] = replace(details, **texts) if texts else details
            self._without_details.pop(conid, None)
        if changed := {leg.conid for leg in self._legs} & found.keys():
            self._compare(changed)

    async def _fetch_some(self, connection: GatewayConnection, conids: list[int]) -> None:
        await self._fetch(connection, conids)
        if len(self._unstored) >= STORED_AT_ONCE or not any(map(self._is_missing, self._wanted)):
            await self._store()

    async def _fetch(self, connection: GatewayConnection, conids: Collection[int]) -> None:
        found = await connection.details(conids)
        self._doubts |= dict.fromkeys(self._doubts.keys() & set(conids), True)
        self._take(found)
        self._compare(set(conids) - found.keys())
        await self._not_given(connection, conids)

    async def _store(self) -> None:
        details = dict(self._unstored)
        if self.table is None or not details or not has_come(self._again_at, self.clock(), AGAIN):
            return
        try:
            await offload(self.table.put, list(details.values()))
        except LakeError as error:
            self._again_at = self.clock() + AGAIN
            logger.warning("contract details could not be stored, they are due again: %s", error)
            return
        self._unstored = {c: one for c, one in self._unstored.items() if details.get(c) is not one}

    def _is_missing(self, conid: int) -> bool:
        asked = self._without_details.get(conid)
        return conid not in self._known and (asked is None or asked.is_due(self.clock()))

    async def _not_given(self, connection: GatewayConnection, conids: Iterable[int]) -> None:
        """Record for which of these contracts the gateway gave no details.

        Only its word that it knows no such contract is a refusal. Without an answer, or with one
        that cannot be read, they are due again a minute later.
        """
        now, refused = self.clock(), dict[int, tuple[int, datetime]]()
        for conid in filter(self._is_missing, list(conids)):
            times, _due_at, at = self._without_details.get(conid, _NotGiven(0, now))
            if conid in connection.unknown:
                times, at = times + 1, now
                refused[conid] = (times, now)
            due_at = now + timedelta(seconds=REFETCH.delay_s(max(times, 1)))
            self._without_details[conid] = _NotGiven(times, due_at, at)
            if times == MOST_TIMES:
                logger.warning(
                    "the gateway gave no details of contract %d, %d times: it has expired or does "
                    "not exist, and is not asked for again. Remove its leg, if it has one; a leg "
                    "that is added anew is asked for again.",
                    conid,
                    times,
                )
        if self.table is None or not refused:
            return
        try:
            await offload(self.table.put_not_given, refused)
        except LakeError as error:
            logger.warning("refused contract details could not be remembered: %s", error)

    def _doubt(self, details: ContractDetails, text: str) -> bool:
        """Record a contradiction; return whether the details are fetched before it counts."""
        conid = details.conid
        if conid not in self._doubts:
            self._doubts[conid] = timedelta() <= self.clock() - details.seen_at < FRESH
            if self._is_doubted(conid):
                logger.warning("the details of contract %d are fetched again: %s", conid, text)
        return self._is_doubted(conid)

    def _is_doubted(self, conid: int) -> bool:
        return self._doubts.get(conid) is False

    def _hours_are_over(self, conid: int, now: datetime) -> bool:
        hours, asked_at = self.hours(conid), self._hours_at.get(conid)
        over = hours is not None and hours.ends <= now and not self._has_expired(conid, now)
        return over and (asked_at is None or elapsed(asked_at, now) >= HOURS_AGAIN)

    def _has_expired(self, conid: int, now: datetime) -> bool:
        """Return whether a contract has no trading hours ahead, wherever it was listed."""
        details = self._known.get(conid)
        end = (details.expires_on or details.last_trade_date) if details is not None else None
        return end is not None and end < (now - timedelta(days=1)).date()


# Delays before a leg that fits no contract, or several, is looked up again: new contracts are
# listed every day.
LOOK_UP = Backoff(first_s=60.0, longest_s=3600.0)

# Without an answer, a leg waits no longer than after this many: the gateway may be back soon.
UNANSWERED = 3

# Maximum number of legs looked up at once; the gateway answers contract details one by one.
AT_ONCE = 10


@dataclass(eq=False, repr=False)
class LegResolver:
    """Finds the one contract that each leg without a conid describes, and stores its conid.

    If a description fits no contract or several, that is stored as the leg's problem, with the
    candidates; none is chosen. Without an answer, nothing changes.

    Args:
        contracts: Stores the details of the contracts that were found.
    """

    context: OwnerContext
    registry: StrategyRegistry
    contracts: ContractCache

    def __post_init__(self) -> None:
        self._attempts: dict[object, tuple[int, float]] = {}
        self._task: asyncio.Task[None] | None = None

    def resolve_in_background(self, connection: GatewayConnection) -> None:
        """Look up the legs that are due, in a background task."""
        keys = {_membership(leg) for leg in self.registry.unresolved}
        self._attempts = {key: tries for key, tries in self._attempts.items() if key in keys}
        if self._task is not None and not self._task.done():
            return
        now_s = self.context.monotonic()
        due = [
            leg
            for leg in self.registry.unresolved
            if (gone := expired(leg, utc_now())) is None or gone != leg.problem
            if self._attempts.get(_membership(leg), (0, now_s))[1] <= now_s
        ]
        if due:
            self._task = asyncio.create_task(self._resolve_or_log(connection, due[:AT_ONCE]))

    def definitions_restored(self) -> None:
        """Look up every leg that waits: the gateway knows contracts again."""
        self._attempts = {key: (tries, 0.0) for key, (tries, _at) in self._attempts.items()}

    async def resolve(self, connection: GatewayConnection, legs: Iterable[UnresolvedLeg]) -> None:
        """Look up the contracts of these legs, and store what was found.

        Raises:
            LakeError: A table cannot be used.
            LeaseLostError: The login belongs to another process now.
        """
        legs = list(legs)
        answers = await asyncio.gather(*(look_up(connection, leg) for leg in legs))
        found: list[ContractDetails] = []
        findings: list[tuple[UnresolvedLeg, int | str]] = []
        for leg, answer in zip(legs, answers, strict=True):
            key, now_s = _membership(leg), self.context.monotonic()
            tries = self._attempts.get(key, (0, 0.0))[0] + 1
            if isinstance(answer, ContractDetails):
                found.append(answer)
                findings.append((leg, answer.conid))
            elif answer is None:
                tries = min(tries, UNANSWERED)
            elif answer != leg.problem:
                findings.append((leg, answer))
            self._attempts[key] = (tries, now_s + LOOK_UP.delay_s(tries))
        if findings:
            self.context.lease.check()
            await self.contracts.remember(found)
            await self.registry.settle(findings)
        problems = {leg.key: leg.problem for leg in self.registry.unresolved}
        for leg, _finding in findings:
            name = f"{leg.described} of strategy {leg.strategy_id}"
            if leg.key not in problems:
                logger.info("the contract of %s was found", name)
            else:
                logger.warning("%s is not streamed: %s", name, problems[leg.key])

    async def close(self) -> None:
        """Cancel the background task."""
        await end_tasks(self._task)

    async def _resolve_or_log(
        self, connection: GatewayConnection, legs: list[UnresolvedLeg]
    ) -> None:
        try:
            await self.resolve(connection, legs)
        except (LakeError, LeaseLostError, ConnectionError) as error:
            logger.warning("legs could not be looked up, they are due again: %s", error)


def _membership(leg: UnresolvedLeg) -> object:
    """Return what identifies the membership: a leg that is added again has a new one."""
    return leg.key, leg.added_at


def expired(leg: UnresolvedLeg, now: datetime) -> str | None:
    """Return the problem of a leg that expired before its contract was found, in any time zone."""
    if leg.expiry is None or leg.expiry >= (now - timedelta(days=1)).date():
        return None
    return f"It expired on {leg.expiry}, and an expired contract has no details any more."


async def look_up(
    connection: GatewayConnection, leg: UnresolvedLeg
) -> ContractDetails | str | None:
    """Return the contract that a leg describes, or the problem; None without an answer.

    For an expired contract, the gateway is not asked.
    """
    if (gone := expired(leg, utc_now())) is not None:
        return gone
    answer = await connection.candidates(leg)
    if answer is None:
        return None
    matching = matching_contracts(leg, answer)
    if len(matching) == 1:
        return matching[0]
    near: list[ContractDetails] = []
    if not matching:
        near = answer or await connection.candidates(leg, like=True) or []
    return problem_of(leg, matching, near)
