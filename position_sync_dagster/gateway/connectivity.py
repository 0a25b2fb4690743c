"""The gateway's own connections: whether it has IB, and which data farms are broken."""

from collections.abc import Iterable

from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.gateway import codes
from position_sync_dagster.gateway.codes import GatewayCode


class Connectivity:
    """Whether the gateway has IB, and which data farms are broken, by its newest messages.

    Attributes:
        lost: The message that it has lost IB (1100, 2110), else None.
        interruptions: How often it lost IB or dropped every subscription (1101).
        broken_farms: The data farms that are broken; the set is changed in place.

    >>> connectivity = Connectivity()
    >>> connectivity.take(1100, "Connectivity between IBKR and TWS has been lost.")
    >>> connectivity.has_ib, connectivity.interruptions
    (False, 1)
    """

    def __init__(self, lost: str | None = None, broken_farms: Iterable[str] = ()) -> None:
        self.lost = lost
        self.interruptions = 0
        self.broken_farms = set(broken_farms)

    @property
    def has_ib(self) -> bool:
        """Return whether the gateway has IB; what it sends without IB is old."""
        return self.lost is None

    def require_ib(self) -> None:
        """Check that the gateway has IB: without it nothing that it sends is current.

        Raises:
            BrokerUnavailableError: With the gateway's own message.
        """
        if self.lost is not None:
            raise BrokerUnavailableError(self.lost, remedy="It comes back by itself.")

    def take(self, code: int, text: str) -> None:
        """Take a message of type 4."""
        if code in codes.OFFLINE:
            self.lost = text
        elif code in codes.RESTORED:
            self.lost = None
        elif code in codes.FARM_BROKEN:
            self.broken_farms.add(codes.farm_of(text))
        elif code in codes.FARM_OK:
            self.broken_farms.discard(codes.farm_of(text))
        if code in codes.OFFLINE or code == GatewayCode.RESTORED_DATA_LOST:
            self.interruptions += 1
