"""Changes of quantities: stored before they are published, then followed for their causes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.execution import Asked
from position_sync_dagster.domain.holding import BrokerPosition, Holdings, Key
from position_sync_dagster.domain.instrument import TERMS, Instrument
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.gateway.connection import DayExecutions, GatewayConnection
from position_sync_dagster.lake.records import RecordsTable
from position_sync_dagster.lake.schema import content_id
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.sync.stream.ownership import Ownership
from position_sync_dagster.sync.stream.parts import ChangeFollower

# Seconds after a change, or after the start, at which the gateway is asked for the executions
# of the day: commissions follow an execution, shares may come minutes after an option is gone, and
# after the night it is known that none came.
EXECUTION_LOOKS_S = (0.0, 5.0, 60.0, 960.0, 28_800.0)

# If the last request is not answered, it is repeated after so many seconds, until it is.
REPEATED_AFTER_S = 960.0


@dataclass(eq=False, repr=False)
class ChangeWatcher:
    """Stores changes before they are published, then calls their followers in the background.

    After a start it calls them too, for what an earlier process left.

    Args:
        changes: Gets the changes.
        followers: Are called in this order.
    """

    ownership: Ownership
    changes: RecordsTable[PositionChange]
    followers: Sequence[ChangeFollower] = ()

    def __post_init__(self) -> None:
        self._due = self._looks()  # when to look for executions, soonest first

    async def record(self, changes: list[PositionChange]) -> None:
        """Store changes; looks for their executions are due from now on.

        Raises:
            LakeError: The table cannot be written, or it has them and did not confirm it.
        """
        self.ownership.check()
        self._due = sorted({*self._due, *self._looks()})
        lease = self.ownership
        # The lease is checked again right before the commit.
        await offload(self.changes.add, changes, lease.provenance.run_id, lease.check)

    async def unpublished(self, published: Holdings, closed_for: timedelta) -> Holdings:
        """Return the holdings whose changes were stored, and then not published.

        An owner asks it at its start, and after a publication that failed.

        Args:
            published: All holdings of the login, and those that closed lately.
            closed_for: How long these stay published. Changes are read as far back from the newest
                publication: an earlier one may be of a holding that is left out by now, and would
                seem new.

        Raises:
            LakeError: The table cannot be read.
        """
        times = [holding.confirmed_at or holding.received_at for holding in published.values()]
        now = self.ownership.clock()
        # By a clock that was set back since, `max` may lie ahead and leave changes out.
        since = min(now, max(times)) - closed_for if times else None
        changes = await offload(self.changes.records, since)
        gateway_id = self.ownership.settings.gateway_id
        return after_changes(
            published, [change for change in changes if change.gateway_id == gateway_id]
        )

    def _looks(self) -> list[float]:
        """Return when to look for executions after a change, or a start, at this moment."""
        now_s = self.ownership.monotonic()
        return [now_s + delay for delay in EXECUTION_LOOKS_S]

    async def look_if_due(self, connection: GatewayConnection) -> None:
        """Ask the gateway for the executions of the day if a look is due; call the followers.

        Raises:
            LakeError: A table cannot be used; the look is due again.
        """
        now_s = self.ownership.monotonic()
        if not self.followers or not self._due or self._due[0] > now_s:
            return
        answer = await connection.executions()
        await self.tell_followers(connection.accounts, answer)
        self._due = [at for at in self._due if at > now_s]
        # Only the last look has to be answered: it names all executions of the day.
        if answer is None and not self._due:
            self._due = [now_s + REPEATED_AFTER_S]

    async def tell_followers(self, accounts: Iterable[str], answer: DayExecutions | None) -> None:
        """Call the followers with what the gateway answered; None if it did not answer.

        Raises:
            LakeError: A table cannot be used.
        """
        self.ownership.check()
        asked: Asked = {}
        if answer is not None:
            asked = dict.fromkeys(accounts, (answer.begin, answer.end))
        executions = () if answer is None else answer.executions
        for follower in self.followers:
            await offload(follower.follow_changes, executions, asked)


def after_changes(published: Holdings, changes: Iterable[PositionChange]) -> Holdings:
    """Return the holdings that stored changes left otherwise than they are published.

    Their owner died, or failed, between the two. A change is one of these if the published holding
    is the one that it began with: its id follows from that.

    Args:
        published: All holdings of a login, and those that closed since a time.
        changes: The changes since then, oldest first.
    """
    unpublished: Holdings = {}
    for change in changes:
        before = unpublished.get(change.key) or published.get(change.key)
        if change.change_id != _change_id(before, change.key, change.seen_at, change.after):
            continue  # the published holding is not the one that it began with: it came later

        unpublished[change.key] = BrokerPosition(
            gateway_id=change.gateway_id,
            account=change.account,
            instrument=Instrument(**{name: getattr(change, name) for name in TERMS}),
            position=change.after,
            average_cost=change.average_cost,
            received_at=change.seen_at,
            position_time=change.seen_at,
            snapshot_id=change.snapshot_id,
        )
    return unpublished


def _change_id(before: BrokerPosition | None, key: Key, seen_at: datetime, after: float) -> str:
    """Return the id of a change: it follows from the holding before it, and the quantity after it.

    Args:
        before: None where there was no holding; the quantity before is 0 then.
        key: The holding.
        seen_at: When the change was seen.
        after: The quantity after it.
    """
    if before is None:
        return content_id(seen_at, *key, 0.0, after)
    return content_id(before.position_time, *key, before.position, after)


def changes_between(
    before: Holdings,
    after: Holdings,
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
        holding
        for key, holding in after.items()
        if holding.position != (before[key].position if key in before else 0.0)
    ]
    if not moved:
        return []

    known_accounts = {account for account, _conid in before}
    known_accounts |= {account for account, at in confirmed.items() if at is not None}
    return [
        _change_to(holding, before.get(holding.key), confirmed.get(holding.account))
        for holding in moved
        if holding.account in known_accounts
    ]


def _change_to(
    holding: BrokerPosition, published: BrokerPosition | None, confirmed_at: datetime | None
) -> PositionChange:
    """Return the change from the published state of a holding, or from nothing, to this one.

    Cost, price and profit are those before it: after a close the holding has none.
    """
    seen_at = holding.position_time
    # When the broker still had the quantity before.
    times = [confirmed_at]
    if published is not None:
        times += [published.confirmed_at, published.position_time]

    before = published or replace(
        holding, position=0.0, average_cost=None, market_value=None, daily_pnl=None
    )
    price = None
    if before.market_value is not None and before.position:
        # What the broker's value makes for one unit: its price may be in cents or not.
        price = before.market_value / (before.position * before.instrument.multiplier)
    is_of_day = exchange_date(before.received_at) == exchange_date(seen_at)
    return PositionChange(
        **holding.instrument.terms,
        change_id=_change_id(published, holding.key, seen_at, holding.position),
        account=holding.account,
        before=before.position,
        after=holding.position,
        average_cost=before.average_cost,
        market_price=price,
        daily_pnl=before.daily_pnl if is_of_day else None,
        since=max(filter(None, times), default=None),
        seen_at=seen_at,
        gateway_id=holding.gateway_id,
        snapshot_id=holding.snapshot_id,
    )
