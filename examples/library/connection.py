"""Share one connection to the gateway, and say why there is none.

`POSITION_SYNC_GATEWAY_PORT=4002 .venv/bin/python examples/library/connection.py`
"""

import asyncio

from position_sync_dagster import (
    GatewayConnection,
    IBConnectionManager,
    PositionSyncError,
    Settings,
    load_settings,
)


async def main() -> None:
    """Print the accounts, and the error of an address where nothing listens."""
    settings: Settings = load_settings()
    manager, another = IBConnectionManager(settings), IBConnectionManager(settings)
    connection: GatewayConnection = await manager.get_connection()
    print(f"{settings.gateway_address}: {', '.join(connection.accounts)}")
    assert connection.ib.isConnected()
    assert await another.get_connection() is connection, "the process has one connection"

    await manager.close()
    is_used = connection.is_connected
    assert is_used, "the other manager still uses it"
    await another.close()
    print(f"connected after both have closed it: {connection.is_connected}")

    try:
        await IBConnectionManager(port=1).get_connection()
    except PositionSyncError as error:
        print(f"{type(error).__name__}: {error}")
    else:
        raise AssertionError("nothing listens there")


if __name__ == "__main__":
    asyncio.run(main())
