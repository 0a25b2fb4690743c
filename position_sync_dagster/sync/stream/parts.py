"""What an extension gives to a stream: followers of changes, rules of legs, and greeks."""

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from position_sync_dagster.domain.execution import Asked, Execution
from position_sync_dagster.domain.holding import BrokerPosition, HoldingGreeks
from position_sync_dagster.domain.leg import LegStates
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.holdings import PendingChanges
from position_sync_dagster.sync.stream.contracts import ContractCache
from position_sync_dagster.sync.stream.lines import StreamLines
from position_sync_dagster.sync.stream.ownership import Ownership

# Returns the open connection; None while its data do not count.
LiveConnection = Callable[[], GatewayConnection | None]


class ChangeFollower(Protocol):
    """Follows the stored changes of quantities, such as for their causes; blocks."""

    def follow_changes(self, executions: Collection[Execution], asked: Asked) -> object:
        """Look at the changes that are due.

        Args:
            executions: What the gateway named of the day.
            asked: The span for which it named all executions, by account.

        Raises:
            LakeError: A table cannot be used; the look is due again.
        """


class RulesOfLegs(Protocol):
    """Chooses legs by what is held."""

    def is_due(self, moves: int, *, first: bool) -> bool:
        """Return whether something changed that legs are chosen by.

        Args:
            moves: How often holdings opened, closed or turned.
            first: Whether they are those of a new connection.
        """

    def apply(
        self, holdings: Iterable[BrokerPosition], accounts: Collection[str], moves: int
    ) -> None:
        """Write the legs that are chosen now into the registry; blocks."""


class PublishedGreeks(dict[int, HoldingGreeks]):
    """The greeks that `broker_positions` has, or gets at the next publication, by conid.

    Attributes:
        changes: The options whose greeks are to be published.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changes: PendingChanges[int] = PendingChanges()

    def take(self, conid: int, greeks: HoldingGreeks | None) -> None:
        """Publish the new greeks of an option, if they differ from the published ones.

        Args:
            conid: The option.
            greeks: Its greeks, with the price of the underlying as its row has it; None: it has
                none.
        """
        before = self.pop(conid, None)
        if greeks is not None:
            self[conid] = greeks
        if greeks != before:
            self.changes.note(conid)


class ComputedGreeks(Protocol):
    """Publishes greeks for the options for which the gateway sends none."""

    def attach(self, connection: GatewayConnection) -> None:
        """Follow the lines and values of a new connection."""

    async def step(self, connection: GatewayConnection, routes: LegStates, version: int) -> None:
        """Follow the routes, whose version changes with them."""

    async def run(self, live_connection: LiveConnection) -> None:
        """Compute until it is cancelled, while the data of a connection count."""

    def summary(self) -> str | None:
        """Return how many options have computed greeks, and why others have none."""


# Makes what computes greeks: it gets the contracts, the lines, and where greeks are published.
MakesGreeks = Callable[[Ownership, ContractCache, StreamLines, PublishedGreeks], ComputedGreeks]
