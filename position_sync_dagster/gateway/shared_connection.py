"""The one connection to a gateway that all managers of an event loop share."""

import asyncio
from typing import ClassVar
from weakref import WeakKeyDictionary, WeakSet

from position_sync_dagster.errors import (
    GatewayError,
    GatewayRefusedError,
    GatewayTimeoutError,
    NotAGatewayError,
    SettingsError,
)
from position_sync_dagster.gateway.connection import GatewayConnection, connect
from position_sync_dagster.settings import Settings, load_settings


class IBConnectionManager:
    """Shares the process's one connection to a gateway with the other managers of that gateway.

    Args:
        settings: Address, pool of client ids, timeouts; by default from the environment.
        host, port, client_id: Override the settings.

    Example:
        manager = IBConnectionManager()
        connection = await manager.get_connection()
        print(connection.accounts, connection.ib.isConnected())
        await manager.close()
    """

    _shared: ClassVar[
        WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int, int], "_Shared"]]
    ] = WeakKeyDictionary()

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        client_id: int | None = None,
    ) -> None:
        settings = settings or load_settings()
        if client_id is not None and client_id < 1:
            raise SettingsError(
                f"The client id {client_id} is refused: id 0 binds the orders of TWS itself.",
                remedy="Use 1 or more.",
            )
        changes = {
            "gateway_host": host or settings.gateway_host,
            "gateway_port": port or settings.gateway_port,
            "gateway_client_id": client_id or settings.gateway_client_id,
        }
        self.settings = settings.model_copy(update=changes)

    async def get_connection(self) -> GatewayConnection:
        """Return the live connection; connect first where there is none.

        Raises:
            GatewayRefusedError: Nothing listens there, or it hangs up at once.
            GatewayTimeoutError: It accepts the connection and then sends nothing.
            NotAGatewayError: It speaks another protocol.
            ClientIdInUseError: Every client id of the pool is in use.
            SettingsError: The login is of another trading mode.
        """
        shared = self._slot()
        async with shared.lock:
            shared.holders.add(self)
            if shared.connection is None or not shared.connection.is_connected:
                if shared.connection is not None and shared.connection.new_port is not None:
                    shared.port = shared.connection.new_port
                shared.connection = await self._connect(shared)
            shared.connection.require_trading_mode(self.settings)
            return shared.connection

    async def close(self) -> None:
        """Release the connection; it ends when the last of its managers has released it."""
        shared = self._slot()
        async with shared.lock:
            shared.holders.discard(self)
            if not shared.holders and shared.connection is not None:
                await shared.connection.close()
                shared.connection = None

    async def _connect(self, shared: "_Shared") -> GatewayConnection:
        """Connect to the last or announced port; if that fails, to the configured one."""
        configured = self.settings.gateway_port
        errors: list[GatewayError] = []
        for port in dict.fromkeys((shared.port or configured, configured)):
            try:
                connection = await connect(self.settings, port=port)
            except (GatewayRefusedError, GatewayTimeoutError, NotAGatewayError) as error:
                errors.append(error)
            else:
                shared.port = port
                return connection
        raise errors[0]

    def _slot(self) -> "_Shared":
        loop = asyncio.get_running_loop()
        slots = self._shared.setdefault(loop, {})
        key = (
            self.settings.gateway_host,
            self.settings.gateway_port,
            self.settings.gateway_client_id,
        )
        return slots.setdefault(key, _Shared())


class _Shared:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.holders: WeakSet[IBConnectionManager] = WeakSet()
        self.connection: GatewayConnection | None = None
        self.port: int | None = None
