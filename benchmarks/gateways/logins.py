"""Some logins as one program: what the stream of each writes, at the pace of the settings.

`python -m benchmarks.gateways.logins` reads a `Work` as JSON, prepares, prints a line, waits for
one, works for its time, and prints what it measured. A login has tables of its own here, as in a
process of its own: nothing is shared but the lake. The gateway is left out; the rows are made up.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import count

from benchmarks.gateways.work import Measured, Work, account_of, name_of
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.holding import AccountConfirmation, BrokerPosition, Completeness
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.position_update import PositionUpdate, Source, ValueOrigin
from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.errors import LakeError, LeaseLostError
from position_sync_dagster.money.lake import MoneyLake

# The lease of a login while others are prepared; its first renewal makes it the usual one.
PREPARATION_S = 3600.0

# Streamed legs of a login with a new value in each flush.
CHANGED = 10

# How often a login publishes changes of its holdings, and of how many.
PUBLISH_S, PUBLISHED = 5.0, 5


class Login:
    """One login: its lease, its rows, its requests."""

    def __init__(self, work: Work, number: int) -> None:
        self._work = work
        self._number = number
        self._lake = MoneyLake(work.lake)
        self._conids = range(number * 1_000_000 + 1, number * 1_000_000 + work.legs + 1)
        self._values = count(1)
        self._committed_at = 0.0
        self._over = threading.Event()
        self.measured = Measured()
        self._session = self._own()

    def _own(self) -> GatewaySession:
        sessions = self._lake.sessions
        session = sessions.acquire(
            name_of(self._number),
            Owner.STREAM,
            lease_s=PREPARATION_S,
            run_id=None,
            host="here",
            pid=os.getpid(),
        )
        self._lake.updates.table.fence(session.gateway_id, session.fencing_token)
        return sessions.renew(session, lease_s=PREPARATION_S, state=SessionState.LIVE)

    def prepare(self) -> None:
        """Publish all holdings, write a row of each streamed leg, and queue the others."""
        self._lake.broker_positions.replace(
            self._session.gateway_id,
            [self._holding(conid) for conid in self._conids],
            session=self._session,
            captured_at=datetime.now(UTC),
        )
        self._append(self._work.streamed)
        self._lake.queue.sync.insert_many(
            QueueRequest(conid, "SPY", account=account_of(self._number))
            for conid in self._conids[self._work.streamed :]
        )
        self.measured = Measured()

    def work(self) -> list[threading.Thread]:
        """Begin to stream, to publish and to renew the lease."""
        until = time.monotonic() + self._work.seconds
        threads = [
            threading.Thread(target=self._repeat, args=(step, every_s, until))
            for step, every_s in (
                (lambda: self._append(CHANGED), self._work.flush_s),
                (self._renew, self._work.heartbeat_s),
                (self._publish, PUBLISH_S),
            )
        ]
        for thread in threads:
            thread.start()
        return threads

    def _repeat(self, step: Callable[[], None], every_s: float, until: float) -> None:
        # Logins begin at any moment of the interval, as processes do.
        at = time.monotonic() + every_s * (self._number * 0.618 % 1)
        while at < until and not self._over.wait(max(at - time.monotonic(), 0)):
            began = time.monotonic()
            try:
                step()
            except LeaseLostError:
                # Its stream ends here, and the supervisor starts another one.
                self.measured.lost = 1
                self._over.set()
            except LakeError as error:
                self.measured.errors.append(type(error).__name__)
            # As the stream does: the next one follows at its time, or when this one has ended.
            at = max(began + every_s, time.monotonic())

    def _append(self, rows: int) -> None:
        began = time.monotonic()
        made = [self._row(self._conids[n % self._work.streamed]) for n in range(rows)]
        self._lake.updates.sync.append(made, guard=self._count_try)
        ended = time.monotonic()
        if self.measured.appends:
            self.measured.gaps.append(ended - self._committed_at)
        self._committed_at = ended
        self.measured.appends.append(ended - began)

    def _count_try(self) -> None:
        self.measured.tries += 1

    def _renew(self) -> None:
        began = time.monotonic()
        self._session = self._lake.sessions.renew(self._session, lease_s=self._work.lease_s)
        self.measured.renewals.append(time.monotonic() - began)

    def _publish(self) -> None:
        began, now = time.monotonic(), datetime.now(UTC)
        positions = self._lake.broker_positions
        changed = [self._holding(conid) for conid in self._conids[:PUBLISHED]]
        confirmed = {account_of(self._number): AccountConfirmation(now)}
        written = positions.update(
            self._session.gateway_id,
            changed,
            self._session,
            captured_at=now,
            accounts=confirmed,
        )
        if written is None:
            everything = [self._holding(conid) for conid in self._conids]
            positions.replace(
                self._session.gateway_id, everything, session=self._session, captured_at=now
            )
        self.measured.publications.append(time.monotonic() - began)

    def _holding(self, conid: int) -> BrokerPosition:
        now = datetime.now(UTC)
        value = float(next(self._values))
        return BrokerPosition(
            gateway_id=name_of(self._number),
            account=account_of(self._number),
            instrument=Instrument(conid=conid, symbol="SPY", sec_type="OPT", currency="USD"),
            position=1.0,
            market_price=value,
            market_value=100 * value,
            received_at=now,
            position_time=now,
            snapshot_id="s",
            value_source=ValueOrigin.PORTFOLIO,
            completeness=Completeness.COMPLETE,
            confirmed_at=now,
        )

    def _row(self, conid: int) -> PositionUpdate:
        value = float(next(self._values))
        return PositionUpdate(
            conid=conid,
            symbol="SPY",
            right=None,
            position=1.0,
            market_price=value,
            market_value=100 * value,
            average_cost=None,
            unrealized_pnl=None,
            timestamp=datetime.now(UTC),
            account=account_of(self._number),
            source=Source.STREAM,
            gateway_id=self._session.gateway_id,
            session_id=self._session.session_id,
            fencing_token=self._session.fencing_token,
        )


def main() -> None:
    """Work as the first line of the input says, when the second one comes."""
    given = json.loads(sys.stdin.readline())
    work = Work(**{**given, "logins": tuple(given["logins"])})
    logins = [Login(work, number) for number in work.logins]
    for login in logins:
        login.prepare()
    print("ready", flush=True)
    sys.stdin.readline()
    for thread in [thread for login in logins for thread in login.work()]:
        thread.join()
    print(json.dumps([asdict(login.measured) for login in logins]), flush=True)


if __name__ == "__main__":
    main()
