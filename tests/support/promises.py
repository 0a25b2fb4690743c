"""What holds of the tables at rest, whatever happened before: no loss, no double, one writer."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

import polars as pl

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.errors import LakeError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.figures import Figures
from tests.support.demo_program import wait_for
from tests.support.logins import Login


def streaming(
    lake: MoneyLake,
    has_lines: Callable[[GatewaySession], bool],
    *,
    name: str | None = None,
    after: GatewaySession | None = None,
    check: Callable[[], object] = lambda: None,
) -> GatewaySession:
    """Wait until a login, or the only one, has a live stream which is another than one before.

    Args:
        check: What raises an error where there is nothing to wait for.
    """

    def lives() -> GatewaySession | None:
        check()
        held_session = None
        with suppress(LakeError):  # there are no tables yet
            newest = lake.sessions.history(1) if name is None else [lake.sessions.current(name)]
            held_session = next(iter(newest), None)
        if held_session is None or (
            after is not None and held_session.session_id == after.session_id
        ):
            return None
        live = held_session.is_alive(utc_now()) and held_session.state is SessionState.LIVE
        return held_session if live and has_lines(held_session) else None

    session: GatewaySession = wait_for(f"{name or 'it'} streams", lives, poll_s=0.3)
    return session


def waiting(lake: MoneyLake, before: datetime | None = None) -> int:
    """Count the requests that have not ended: all, or those that were made before a time."""
    if before is None:
        counts = lake.queue.sync.counts()
        return counts[QueueStatus.PENDING] + counts[QueueStatus.PROCESSING]
    rows = lake.queue.table.rows(columns=["status", "created_at"])
    live = pl.col("status").is_in([QueueStatus.PENDING.value, QueueStatus.PROCESSING.value])
    return rows.filter(live, pl.col("created_at") < before).height


def current_by_login(overview: Figures) -> dict[str, int]:
    """Count the holdings of each login whose value is current now."""
    logins = overview.book.held.filter("is_current").get_column("gateway_id").to_list()
    return {
        login.gateway_id: logins.count(login.gateway_id) for login in overview.status.each_login
    }


def assert_kept(lake: MoneyLake, logins: Sequence[Login], quiet_at: datetime) -> None:
    """Check every promise; everything that writes has ended.

    Args:
        quiet_at: Each request that was made before it has ended; later ones may still wait.
    """
    assert_nothing_is_lost(lake, logins, quiet_at)
    assert_nothing_is_double(lake)
    assert_one_writer_each(lake)
    for login in logins:
        stats = login.stats()
        assert stats["peak_lines"] <= login.budget, f"{login.name}: {stats['peak_lines']} lines"
        assert stats["orders_received"] == []


def assert_nothing_is_lost(lake: MoneyLake, logins: Sequence[Login], quiet_at: datetime) -> None:
    """Each request has ended with a row of its holding, and each newest row is the broker's."""
    key = ["update_id", "account", "conid"]
    requests = lake.queue.table.rows(columns=["request_id", *key, "status", "created_at"])
    is_answered = pl.col("status") == "SUCCESS"
    requests = requests.filter(is_answered | (pl.col("created_at") < quiet_at))
    assert set(requests["status"]) == {"SUCCESS"}, requests["status"].value_counts()
    written = lake.updates.table.rows(columns=key)
    unanswered = requests.join(written, on=key, how="anti")
    assert unanswered.is_empty(), unanswered

    newest = lake.updates.sync.latest().select("account", "conid", "position")
    rows = {(account, conid): position for account, conid, position in newest.iter_rows()}
    at_brokers = {key: held for login in logins for key, held in login.positions().items()}
    differing = {}
    for holding in rows.keys() | at_brokers.keys():
        positions = (rows.get(holding), at_brokers.get(holding))
        if positions[0] != positions[1]:
            differing[holding] = positions

    assert differing == {}, f"row and broker differ: {differing}"


def assert_nothing_is_double(lake: MoneyLake) -> None:
    """Each request ended once, and each row and each answer was written once."""
    requests = lake.queue.table.rows(columns=["request_id"])["request_id"]
    assert requests.is_unique().all(), "a request ended twice"
    written = lake.updates.table.rows(columns=["update_id", "request_id"])
    assert written["update_id"].is_unique().all(), "a row was written twice"
    assert written["request_id"].drop_nulls().is_unique().all(), "a request has two rows"


def assert_one_writer_each(lake: MoneyLake) -> None:
    """No row of an older token was written after one of a newer, for each login."""
    token = ["gateway_id", "fencing_token"]
    rows = lake.updates.table.rows(columns=[*token, "session_id", "ledger_version", "source"])
    rows = rows.filter(pl.col("source") == "STREAM")
    owners = rows.select(*token, "session_id").unique()
    assert owners.select(token).is_unique().all(), owners

    version = pl.col("ledger_version")
    spans = rows.group_by(token).agg(first=version.min(), last=version.max()).sort(token)
    spans = spans.with_columns(before=pl.col("last").shift().over("gateway_id"))
    late = spans.filter(pl.col("before") > pl.col("first"))
    assert late.is_empty(), f"an older owner wrote after a newer one: {late}"
