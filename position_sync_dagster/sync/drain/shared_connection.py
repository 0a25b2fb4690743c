"""Values over the shared connection, for the library in one process."""

from datetime import timedelta

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import BrokerUnavailableError, GatewayError
from position_sync_dagster.gateway.connection_manager import IBConnectionManager
from position_sync_dagster.sync.decisions.availability import unconfirmed
from position_sync_dagster.sync.drain.broker_view import BrokerView


class ConnectionValues:
    """Values over the process's shared connection: the library in one process."""

    def __init__(self, manager: IBConnectionManager) -> None:
        self._manager = manager

    async def view(self) -> BrokerView:
        """Give the account feed's holdings, downloading them first where they are missing."""
        try:
            connection = await self._manager.get_connection()
            await connection.feed.ensure(
                timedelta(seconds=self._manager.settings.refresh_interval_s)
            )
        except GatewayError as error:
            raise BrokerUnavailableError(error.what, remedy=error.remedy) from error
        connection.require_online()
        feed = connection.feed
        return BrokerView(
            holdings={h.key: h for h in feed.holdings},
            complete=feed.is_complete,
            unconfirmed=unconfirmed(feed.holdings, self._manager.settings, utc_now()),
        )

    async def close(self) -> None:
        """Give the connection up."""
        await self._manager.close()
