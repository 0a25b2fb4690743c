"""Values over the shared connection of this process, for use as a library."""

from datetime import timedelta

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import BrokerUnavailableError, GatewayError
from position_sync_dagster.gateway.connection_manager import IBConnectionManager
from position_sync_dagster.sync.decisions.availability import unconfirmed
from position_sync_dagster.sync.drain.broker_view import BrokerView


class ConnectionValues:
    """Values from the account feed of the process's shared connection."""

    def __init__(self, manager: IBConnectionManager) -> None:
        self._manager = manager

    async def view(self) -> BrokerView:
        """Return the account feed's holdings; download them first where they are missing.

        Raises:
            BrokerUnavailableError: The gateway cannot be used, or it has lost the broker.
        """
        try:
            connection = await self._manager.get_connection()
            connection.require_online()
            await connection.feed.ensure(
                timedelta(seconds=self._manager.settings.refresh_interval_s)
            )
        except GatewayError as error:
            raise BrokerUnavailableError(error.what, remedy=error.remedy) from error
        connection.require_online()
        feed = connection.feed
        return BrokerView(
            holdings={h.key: h for h in feed.holdings},
            complete=feed.is_complete and not feed.book.unmanaged,
            unconfirmed=unconfirmed(feed.holdings, self._manager.settings, utc_now()),
        )

    async def close(self) -> None:
        """Close the connection, unless others still use it."""
        await self._manager.close()
