"""Watches for closes: stores each change of a quantity, and asks the gateway why."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.closures import PositionChange
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.statement import Execution
from position_sync_dagster.errors import LakeError
from position_sync_dagster.gateway.connection import DayExecutions, GatewayConnection
from position_sync_dagster.lake.schema.ids import content_id
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.sync.explain_closes import CloseExplainer
from position_sync_dagster.sync.leg_followers import RollFollower
from position_sync_dagster.sync.stream.ownership import OwnerContext, end_tasks

logger = logging.getLogger(__name__)

LOOKS_S = (0.0, 5.0, 60.0, 960.0)
"""Seconds after a change, or after the start, at which the gateway is asked for the executions of
the day: commissions follow an execution, and shares may come minutes after an option is gone. If
the last request is not answered, it is repeated after the longest time, until it is."""


@dataclass(eq=False, repr=False)
class CloseWatcher:
    """Stores changes before they are published, then looks for their causes in the background.

    After a start it looks for the causes that an earlier process did not find.

    Args:
        rolls: Replaces the legs of strategies that follow rolls, after the causes were judged.
    """

    context: OwnerContext
    explainer: CloseExplainer
    rolls: RollFollower | None = None

    def __post_init__(self) -> None:
        self._due = self._looks()
        self._recorded = self._asked = False
        self._task: asyncio.Task[None] | None = None

    async def record(self, changes: list[PositionChange]) -> None:
        """Store changes; looks for their executions are due at `LOOKS_S` from now on.

        Raises:
            LakeError: The table cannot be written, or it has them and did not confirm it.
        """
        self.context.lease.check()
        if changes:
            self._recorded = True
            self._due = sorted({*self._due, *self._looks()})
        await offload(self.explainer.record, changes)

    async def unpublished(
        self, published: Mapping[Key, BrokerPosition], since: datetime | None
    ) -> dict[Key, BrokerPosition]:
        """Return the holdings whose changes an earlier process stored, and then did not publish.

        Args:
            published: All holdings of the login, and those that closed since a time.
            since: That time; None if nothing was published.

        Raises:
            LakeError: The table cannot be read.
        """
        changes = await offload(self.explainer.lake.position_changes.records, since)
        gateway_id = self.context.settings.gateway_id
        return after_changes(published, (one for one in changes if one.gateway_id == gateway_id))

    def _looks(self) -> list[float]:
        now_s = self.context.monotonic()
        return [now_s + delay for delay in LOOKS_S]

    def look_in_background(self, connection: GatewayConnection) -> None:
        """Look for causes if it is due, in a background task."""
        if self._task is not None and not self._task.done():
            return
        now_s = self.context.monotonic()
        if not self._due or self._due[0] > now_s:
            return
        self._due = [at for at in self._due if at > now_s]
        self._task = asyncio.create_task(self._look_or_log(connection))

    async def look(self, accounts: Iterable[str], answer: DayExecutions | None) -> None:
        """Judge the closes by what the gateway answered; None if it did not answer.

        Raises:
            LakeError: A table cannot be used.
        """
        self.context.lease.check()
        executions: Sequence[Execution] = () if answer is None else answer.executions
        span = None if answer is None else (answer.begin, answer.end)
        asked = {} if span is None else dict.fromkeys(accounts, span)
        await offload(self.explainer.explain, executions, asked)
        if self.rolls is not None:
            await offload(self.rolls.follow)

    async def close(self) -> None:
        """Cancel the background task."""
        await end_tasks(self._task)

    async def _look_or_log(self, connection: GatewayConnection) -> None:
        try:
            # The first look is for the orders of the day: they show what belongs together.
            is_due = self._recorded or not self._asked
            if not is_due and not await offload(self.explainer.has_open_closes):
                return
            self._asked = True
            answer = await connection.executions()
            await self.look(connection.accounts, answer)
            if answer is None and not self._due:
                self._due = [self.context.monotonic() + LOOKS_S[-1]]
        except LakeError as error:
            logger.warning("the causes of closes are not stored, they are due later: %s", error)
            self._due = [self.context.monotonic() + LOOKS_S[1], *self._due]


_TERMS = ("conid", "symbol", "sec_type", "currency", "multiplier", "right", "strike", "expiry")


def after_changes(
    published: Mapping[Key, BrokerPosition], changes: Iterable[PositionChange]
) -> dict[Key, BrokerPosition]:
    """Return the holdings that stored changes left otherwise than they are published.

    Args:
        published: All holdings of a login, and those that closed since a time.
        changes: The changes since then, oldest first.
    """
    found: dict[Key, BrokerPosition] = {}
    for change in changes:
        known = found.get(change.key) or published.get(change.key)
        at, quantity = (known.position_time, known.position) if known else (change.seen_at, 0.0)
        if change.change_id != content_id(at, *change.key, quantity, change.after):
            continue  # it is published
        found[change.key] = BrokerPosition(
            gateway_id=change.gateway_id,
            account=change.account,
            instrument=Instrument(**{name: getattr(change, name) for name in _TERMS}),
            position=change.after,
            average_cost=change.average_cost,
            received_at=change.seen_at,
            position_time=change.seen_at,
            snapshot_id=change.snapshot_id,
        )
    return found


def changes_between(
    before: Mapping[Key, BrokerPosition],
    after: Mapping[Key, BrokerPosition],
    confirmed: Mapping[str, datetime | None],
) -> list[PositionChange]:
    """Return the quantities that changed.

    Before the first list of an account its holdings are unknown: those in that list are no change.
    An account without holdings is known too, once the broker has confirmed it.

    Args:
        before: The holdings as they were published last.
        after: Those that are published now, or only the ones that changed.
        confirmed: Until when the broker had confirmed the holdings of each account.
    """
    moved = [
        (known, holding)
        for key, holding in after.items()
        if (known := before.get(key)) is None or known.position != holding.position
    ]
    accounts = {account for account, _conid in before} if moved else set()
    accounts |= {account for account, at in confirmed.items() if at is not None}
    found: list[PositionChange] = []
    for known, holding in moved:
        quantity = known.position if known is not None else 0.0
        if holding.account not in accounts or holding.position == quantity:
            continue
        terms = holding.instrument
        times = [confirmed.get(holding.account)]
        if known is not None:
            times += known.confirmed_at, known.position_time
        # Later times are from before the clock was set back.
        since = max((at for at in times if at and at <= holding.position_time), default=None)
        found.append(
            PositionChange(
                change_id=content_id(
                    known.position_time if known is not None else holding.position_time,
                    holding.account,
                    terms.conid,
                    quantity,
                    holding.position,
                ),
                account=holding.account,
                **{name: getattr(terms, name) for name in _TERMS},
                before=quantity,
                after=holding.position,
                average_cost=known.average_cost if known is not None else None,
                market_price=_price_of(known) if known is not None else None,
                since=since,
                seen_at=holding.position_time,
                gateway_id=holding.gateway_id,
                snapshot_id=holding.snapshot_id,
            )
        )
    return found


def _price_of(holding: BrokerPosition) -> float | None:
    """Return what the broker's value makes for one unit: its price may be in cents or not."""
    if holding.market_value is None or not holding.position:
        return None
    return holding.market_value / (holding.position * holding.instrument.multiplier)
