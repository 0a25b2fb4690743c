"""An owner of a login that writes rows until it is refused; see `forked_workers`."""

import os
import time
from datetime import UTC, datetime, timedelta

from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.domain.holding import PositionUpdate
from position_sync_dagster.errors import LeaseLostError
from position_sync_dagster.lake.lake import Lake

LEASE_S = 2.0


def main(path: str, clock_s: float = 0.0, lease_s: float = LEASE_S) -> None:
    """Own the login `g` with a lease that is not renewed, and write for it.

    Args:
        path: The lake.
        clock_s: By how much this machine's clock is ahead of the others; negative: behind.
        lease_s: How long the lease lasts.
    """

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=clock_s)

    lake = Lake(path, clock=clock)
    session = lake.sessions.acquire(
        "g", Owner.STREAM, lease_s=lease_s, run_id=None, host="here", pid=os.getpid()
    )
    lake.updates.sync.fence("g", session.fencing_token)
    number = 0
    while True:
        number += 1
        row = PositionUpdate(
            1, "SPY", None, 1.0, 1.0, float(number), 1.0, 1.0, clock(),
            gateway_id="g", fencing_token=session.fencing_token,
        )  # fmt: skip
        try:
            lake.updates.sync.append([row])
        except LeaseLostError as error:
            print(type(error).__name__)
            return
        time.sleep(0.05)
