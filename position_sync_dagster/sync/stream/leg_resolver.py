"""Finds the contracts of legs that were given without a conid."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from position_sync_dagster.domain.clock import Backoff, utc_now
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import UnresolvedLeg, matching_contracts, problem_of
from position_sync_dagster.errors import LakeError, LeaseLostError
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.lake.strategy_registry import StrategyRegistry
from position_sync_dagster.sync.stream.ownership import OwnerContext, end_tasks

logger = logging.getLogger(__name__)

RETRY = Backoff(first_s=60.0, longest_s=3600.0)
"""Delays before a leg that fits no contract, or several, is looked up again: new contracts are
listed every day."""

UNANSWERED = 3
"""Without an answer, a leg waits no longer than after this many: the gateway may be back soon."""

AT_ONCE = 10
"""Maximum number of legs looked up at once; the gateway answers contract details one by one."""


@dataclass(eq=False, repr=False)
class LegResolver:
    """Finds the one contract that each leg without a conid describes, and stores its conid.

    If a description fits no contract or several, that is stored as the leg's problem, with the
    candidates; none is chosen. Without an answer, nothing changes.

    Args:
        remember: Called with the details of the contracts that were found, to store them.
    """

    context: OwnerContext
    registry: StrategyRegistry
    remember: Callable[[list[ContractDetails]], Awaitable[object]]

    def __post_init__(self) -> None:
        self._attempts: dict[object, tuple[int, float]] = {}
        self._logged: dict[object, str] = {}
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
        gate = asyncio.Semaphore(AT_ONCE)

        async def in_turn(leg: UnresolvedLeg) -> ContractDetails | str | None:
            async with gate:
                return await look_up(connection, leg)

        answers = await asyncio.gather(*(in_turn(leg) for leg in legs))
        for leg, answer in zip(legs, answers, strict=True):
            key, now_s = _membership(leg), self.context.monotonic()
            tries = self._attempts.get(key, (0, 0.0))[0] + 1
            if answer is None:
                tries = min(tries, UNANSWERED)
            self._attempts[key] = (tries, now_s + RETRY.delay_s(tries))
        found = [answer for answer in answers if isinstance(answer, ContractDetails)]
        findings = [
            (leg, answer.conid if isinstance(answer, ContractDetails) else answer)
            for leg, answer in zip(legs, answers, strict=True)
            if answer is not None and answer != leg.problem
        ]
        if findings:
            self.context.lease.check()
            if found:
                await self.remember(found)
            await self.registry.settle(findings)
        self._log(legs)

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

    def _log(self, looked_up: list[UnresolvedLeg]) -> None:
        """Log each contract that was found, and each problem once."""
        problems = {leg.key: leg.problem for leg in self.registry.unresolved}
        for leg in looked_up:
            name = f"{leg.described} of strategy {leg.strategy_id}"
            if leg.key not in problems:
                logger.info("the contract of %s was found", name)
                self._logged.pop(leg.key, None)
            elif (problem := problems[leg.key]) and self._logged.get(leg.key) != problem:
                self._logged[leg.key] = problem
                logger.warning("%s is not streamed: %s", name, problem)


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
