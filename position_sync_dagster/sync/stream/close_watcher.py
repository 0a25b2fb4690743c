"""Stores each change of a quantity before it is published, and asks the gateway why it happened."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from position_sync_dagster.domain.closes import Execution, PositionChange
from position_sync_dagster.domain.holding import (
    BrokerPosition,
    Key,
)
from position_sync_dagster.gateway.connection import DayExecutions, GatewayConnection
from position_sync_dagster.lake.storage.table import offload
from position_sync_dagster.sync.explain_closes import CloseExplainer
from position_sync_dagster.sync.leg_followers import RollFollower
from position_sync_dagster.sync.position_changes import after_changes
from position_sync_dagster.sync.stream.ownership import OwnerContext

# How long a closed holding stays in `broker_positions`; longer if its zero row was not written.
CLOSED_KEPT = timedelta(days=2)

# Seconds after a change, or after the start, at which the gateway is asked for the executions of
# the day: commissions follow an execution, and shares may come minutes after an option is gone. If
# the last request is not answered, it is repeated after the longest time, until it is.
LOOKS_S = (0.0, 5.0, 60.0, 960.0)


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

    async def record(self, changes: list[PositionChange]) -> None:
        """Store changes; looks for their executions are due at `LOOKS_S` from now on.

        Raises:
            LakeError: The table cannot be written, or it has them and did not confirm it.
        """
        self.context.lease.check()
        self._due = sorted({*self._due, *self._looks()})
        await offload(self.explainer.record, changes)

    async def unpublished(
        self, published: Mapping[Key, BrokerPosition]
    ) -> dict[Key, BrokerPosition]:
        """Return the holdings whose changes were stored, and then not published.

        Args:
            published: All holdings of the login, and those that closed lately.

        Raises:
            LakeError: The table cannot be read.
        """
        times = [holding.confirmed_at or holding.received_at for holding in published.values()]
        since = max(times) - CLOSED_KEPT if times else None
        changes = await offload(self.explainer.lake.position_changes.records, since)
        gateway_id = self.context.settings.gateway_id
        of_login = [change for change in changes if change.gateway_id == gateway_id]
        return after_changes(published, of_login)

    def _looks(self) -> list[float]:
        now_s = self.context.monotonic()
        return [now_s + delay for delay in LOOKS_S]

    async def look_if_due(self, connection: GatewayConnection) -> None:
        """Ask the gateway for the executions of the day if a look is due, and judge the closes.

        Raises:
            LakeError: A table cannot be used; the look is due again.
        """
        now_s = self.context.monotonic()
        if not self._due or self._due[0] > now_s:
            return
        answer = await connection.executions()
        await self.look(connection.accounts, answer)
        self._due = [at for at in self._due if at > now_s]
        if answer is None and not self._due:
            self._due = [self.context.monotonic() + LOOKS_S[-1]]

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
