"""Catch what may go wrong, by what can be done about it. It needs no gateway.

`.venv/bin/python examples/library/errors.py`
"""

import asyncio

from position_sync_dagster import (
    GatewayError,
    IBConnectionManager,
    InvalidLegError,
    LakeError,
    LoginOwnedError,
    PositionQueue,
    PositionSyncError,
    QueueRequest,
    RequestStateError,
    StrategyRegistry,
    UnknownLegError,
    UnknownRequestError,
    UserError,
)


def advice(error: PositionSyncError) -> str:
    """Return what a program does about an error: `what` happened, and the `remedy`, are text."""
    if isinstance(error, UserError):
        return "correct the call"
    if isinstance(error, LoginOwnedError):
        return "leave the login to its owner"
    if isinstance(error, GatewayError):
        return "try again"
    return "look at the table" if isinstance(error, LakeError) else "stop"


async def main() -> None:
    """Cause some errors, and print what each asks for."""
    caught: list[PositionSyncError] = []
    registry, queue = StrategyRegistry(), PositionQueue()
    await registry.initialize()
    await queue.initialize()

    try:
        await registry.add_active(1, "SPY", "SIDEWAYS", 500.0, "20270115", "condor")
    except InvalidLegError as error:
        caught.append(error)
    try:
        await registry.remove_active(1, "condor")
    except UnknownLegError as error:
        caught.append(error)
    try:
        await queue.mark_failed("no such request", "no price")
    except UnknownRequestError as error:
        caught.append(error)
    (request_id,) = await queue.insert_many([QueueRequest(1, "SPY")])
    await queue.mark_failed(request_id, "no price", retryable=False)
    try:
        await queue.release(request_id)
    except RequestStateError as error:
        caught.append(error)
    try:
        await IBConnectionManager(port=1).get_connection()
    except GatewayError as error:
        caught.append(error)

    for each in caught:
        print(f"{type(each).__name__}: {each.what} ({advice(each)})")
    assert [advice(each) for each in caught] == ["correct the call"] * 4 + ["try again"]


if __name__ == "__main__":
    asyncio.run(main())
