"""What becomes of a batch of the queue, and the broker's values for it.

The values come from the table `broker_positions`. Pure functions decide whose values count, and
what becomes of each request.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

import polars as pl

from position_sync_dagster import errors
from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness, Key
from position_sync_dagster.domain.clock import SKEW, Clock, utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.domain.streamed_holding import confirmed_time
from position_sync_dagster.domain.update import (
    Answer,
    PositionUpdate,
    QueuedPosition,
    Source,
    ValueOrigin,
)
from position_sync_dagster.domain.valuation import Provenance, from_portfolio, says_the_same
from position_sync_dagster.lake.broker_positions import last_time
from position_sync_dagster.lake.lake import Lake, broker_rows
from position_sync_dagster.lake.schema.codec import broker_positions_of
from position_sync_dagster.lake.schema.ids import content_id
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.settings import Settings

TIME_LIMIT_S = Settings.drain_time_limit_s


def unconfirmed(
    rows: Iterable[BrokerPosition], settings: Settings, now: datetime
) -> frozenset[Key]:
    """Return the holdings that the broker has not confirmed for two intervals and a drain.

    The interval is the longer one of `refresh_interval_s` and `account_interval_s`, in which the
    broker sends values by itself. A holding is confirmed by messages of its account after the
    download ended, and by a value of its own (a PnLSingle subscription needs no download). No
    holding of an account that is UNKNOWN is confirmed.
    """
    interval_s = max(settings.refresh_interval_s, settings.account_interval_s)
    span = timedelta(seconds=2 * interval_s + TIME_LIMIT_S)
    return frozenset(
        row.key
        for row in rows
        if row.completeness is Completeness.UNKNOWN
        or not (
            _is_recent(row.confirmed_at, span, now)
            or (row.value_source is not ValueOrigin.NONE and _is_recent(row.received_at, span, now))
        )
    )


def unavailable_reason(
    session: GatewaySession | None, confirmed: datetime | None, settings: Settings, now: datetime
) -> str | None:
    """Return why the rows of `broker_positions` are not current; None when they are.

    They are current while the owner is LIVE. Without an owner they are current for one refresh
    interval and the time limit of a drain, counted from the newest `confirmed_at`. A
    `confirmed_at` in the future means that the clock was set back: the age is unknown.

    Args:
        confirmed: The newest `confirmed_at` of the rows.
    """
    gateway_id = settings.gateway_id
    if session is not None and session.is_alive(now):
        if session.state is SessionState.LIVE:
            return None
        because = f": {session.detail}" if session.detail else "."
        return (
            f"The owner of {gateway_id} is {session.state} since "
            f"{session.state_since:%H:%M:%S} UTC{because}"
        )
    if confirmed is None:
        return f"The positions of the gateway {gateway_id} have not been downloaded yet."
    span = timedelta(seconds=settings.refresh_interval_s + TIME_LIMIT_S)
    if not _is_recent(confirmed, span, now):
        return (
            f"The positions of the gateway {gateway_id} were last downloaded at "
            f"{confirmed:%Y-%m-%d %H:%M:%S} UTC, and no stream is alive."
        )
    return None


def _is_recent(at: datetime | None, span: timedelta, now: datetime) -> bool:
    return at is not None and now - span <= at <= now + SKEW


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Which accounts the broker's current holdings cover.

    Attributes:
        complete: Whether they cover every account.
        covered: Whether they cover each account that is known by name.
        unavailable: The accounts of logins without current data; their requests wait.
    """

    complete: bool
    covered: Mapping[str, bool] = field(default_factory=dict)
    unavailable: frozenset[str] = frozenset()

    def covers(self, account: str | None) -> bool:
        """Return whether a holding that is missing here is not held in an account.

        If the logins name their accounts, no login has any other account: nothing is held there.

        Args:
            account: The account; None for any account.
        """
        if account is None or not self.covered:
            return self.complete
        return self.covered.get(account, True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerView(Coverage):
    """The current holdings of some contracts.

    Attributes:
        holdings: The holdings, by account and conid.
        unconfirmed: Holdings whose values are too old to be written as new rows.
        captured: When each session read the holdings that it published from its account feed.
    """

    holdings: Mapping[Key, BrokerPosition]
    unconfirmed: frozenset[Key] = frozenset()
    captured: Mapping[str, datetime] = field(default_factory=dict)


class ValueSource(Protocol):
    """A source of the current broker view that uses no market data line."""

    async def view(self, conids: Collection[int] | None = None) -> BrokerView:
        """Return the current holdings of these contracts; by default of all.

        Raises:
            BrokerUnavailableError: There is no current view; try again later.
        """
        ...

    async def close(self) -> None:
        """Close what was opened for the view."""
        ...


@dataclass(eq=False, repr=False)
class LakeValues:
    """Values from the table `broker_positions`, which the owners of the logins write.

    This source works across processes. `unavailable_reason` decides for each login whether its rows
    are current.
    """

    lake: Lake
    settings: Settings
    _: KW_ONLY
    clock: Clock = utc_now

    async def view(self, conids: Collection[int] | None = None) -> BrokerView:
        """Return the holdings of these contracts in the logins whose rows are current.

        Raises:
            BrokerUnavailableError: No login has current rows; the message says why.
        """
        rows, coverage = await self.rows()
        wanted = rows if conids is None else rows.filter(pl.col("conid").is_in(list(conids)))
        holdings = broker_positions_of(wanted)
        newest = rows.select("gateway_id", "published_version", "session_id", "captured_at")
        newest = newest.sort("published_version").unique("gateway_id", keep="last")
        return BrokerView(
            **asdict(coverage),
            holdings={holding.key: holding for holding in holdings},
            unconfirmed=unconfirmed(holdings, self.settings, self.clock()),
            captured=dict(newest.select("session_id", "captured_at").drop_nulls().iter_rows()),
        )

    async def rows(self) -> tuple[pl.DataFrame, Coverage]:
        """Return the stored rows of the logins whose rows are current.

        Raises:
            BrokerUnavailableError: No login has current rows; the message says why.
        """
        found: list[pl.DataFrame] = []
        covered: dict[str, bool] = {}
        complete: list[bool] = []
        unavailable: set[str] = set()
        reasons: list[str] = []
        for login in self.settings.logins:
            accounts = login.accounts or ()
            rows, why = await self._rows_of(login)
            if why is not None:
                reasons.append(why)
                unavailable.update(accounts)
                covered |= dict.fromkeys(accounts, False)
                continue
            found.append(rows)
            is_whole = rows.get_column("completeness") == Completeness.COMPLETE.value
            complete.append(rows.height > 0 and is_whole.all())
            covered |= dict.fromkeys(accounts, complete[-1])
        if not found:
            raise errors.BrokerUnavailableError(
                " ".join(reasons),
                remedy="Nothing to do: the requests wait, and none is lost or marked FAILED.",
            )
        return pl.concat(found), Coverage(
            complete=not reasons and all(complete),
            covered=covered,
            unavailable=frozenset(unavailable),
        )

    async def _rows_of(self, login: Settings) -> tuple[pl.DataFrame, str | None]:
        """Return the rows of a login, and why they are not current."""
        now = self.clock()
        session = await offload(self.lake.sessions.current, login.gateway_id)
        rows = await offload(broker_rows, self.lake, login)
        last = last_time(rows.get_column("confirmed_at"), now)
        return rows, unavailable_reason(session, last, login, now)

    async def close(self) -> None:
        """Do nothing: the tables are shared with others."""


NOT_HELD = "No account of the login holds this conid."
NOT_COVERED = "the broker's answer did not cover every account"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """The rows to write for a batch, and what becomes of its requests, by their ids.

    Attributes:
        answers: The row that answers each valued request: one of `rows`, or one of the ledger.
    """

    rows: tuple[PositionUpdate, ...] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    not_held: tuple[str, ...] = ()
    not_covered: tuple[str, ...] = ()


def plan_batch(
    batch: Sequence[QueuedPosition],
    view: BrokerView,
    newest: Mapping[Key, PositionUpdate],
    *,
    now: datetime,
    provenance: Provenance,
    keep: timedelta,
    written: Collection[str] = (),
) -> BatchPlan:
    """Decide about each request of a batch.

    A request has a row of its own in the ledger if its worker was killed before it marked the
    request. That row answers the request, whatever was written since. If the quantity is another
    one now, the holding needs a further row.

    Otherwise, a holding needs no new row if its newest row in the ledger has the same values, or is
    from the stream and newer than the view. That row then answers the request; so does the row that
    an earlier request of the batch needs.

    The update_id of a row is derived from its request and its holding, so that a row of an earlier
    claim is recognized. It sorts by the time of the request.

    Args:
        batch: The requests.
        view: What the broker reports.
        newest: The newest row of each holding, as far as it is known.
        now: The time of the rows.
        provenance: The writer of the rows.
        keep: A row that is older than this is written again, even with the same values.
        written: Ids of the requests' own rows that the ledger holds; see `own_ids`.
    """
    rows: list[PositionUpdate] = []
    planned: dict[Key, PositionUpdate] = {}
    answers: dict[str, Answer] = {}
    not_held: list[str] = []
    not_covered: list[str] = []
    for request in batch:
        holdings = match_holdings(request, view)
        if not holdings:
            (not_covered if holdings is None else not_held).append(request.request_id)
        for holding in holdings or ():
            known = planned.get(holding.key) or newest.get(holding.key)
            own_id = _own_id(request, holding.key)
            made = replace(
                from_portfolio(holding, source=Source.QUEUE, now=now, by=provenance),
                request_id=request.request_id,
                update_id=own_id,
            )
            row: PositionUpdate | None = made
            if own_id in written:
                # A later row of the holding does not show when the value of the own row was true.
                row = known if known is not None and known.update_id == own_id else None
                if known is None or known.position != holding.position:
                    # The request may also be that of a change which came after its own row.
                    later_id = content_id(now, request.request_id, *holding.key)
                    row, planned[holding.key] = None, replace(made, update_id=later_id)
                    rows.append(planned[holding.key])
            elif known is not None and _answers(known, made, view, now, keep):
                row = known
            else:
                rows.append(made)
                planned[holding.key] = made
            answer = Answer(
                update_id=own_id if row is None else row.update_id,
                confirmed_at=None if row is None else confirmed_time(row, holding, now),
            )
            answers.setdefault(request.request_id, answer)
    return BatchPlan(
        rows=tuple(rows),
        answers=answers,
        not_held=tuple(not_held),
        not_covered=tuple(not_covered),
    )


def own_ids(
    batch: Iterable[QueuedPosition],
    view: BrokerView,
    newest: Mapping[Key, PositionUpdate],
    since: datetime,
) -> list[str]:
    """Return the ids of the rows that an earlier claim of a request may have written.

    Such a row is newer than its request, apart from the difference of two clocks. If it exists,
    the newest row of its holding is also newer than the request.

    Args:
        newest: The newest row of each holding that has a row after `since`.
    """
    found: list[str] = []
    for request in batch:
        for holding in match_holdings(request, view) or ():
            known = newest.get(holding.key)
            if (known.timestamp if known is not None else since) > request.created_at - SKEW:
                found.append(_own_id(request, holding.key))
    return found


def _own_id(request: QueuedPosition, key: Key) -> str:
    return content_id(request.created_at, request.request_id, *key)


def _answers(
    known: PositionUpdate, row: PositionUpdate, view: BrokerView, now: datetime, keep: timedelta
) -> bool:
    """Return whether the newest row of a holding makes another row unnecessary.

    The stream may have written a row, such as that of a close, before it published the holding. It
    uses one clock for both, so that the two times can be compared. Rows of other writers are
    compared by their values, never by their time.
    """
    if known.timestamp > now + SKEW:
        return False
    captured_at = view.captured.get(known.session_id) if known.session_id else None
    if known.source is Source.STREAM and captured_at is not None and known.timestamp > captured_at:
        return True
    return now - known.timestamp < keep and says_the_same(row, known)


def match_holdings(request: QueuedPosition, view: BrokerView) -> tuple[BrokerPosition, ...] | None:
    """Return the holdings that a request asks for; one per account if it names no account.

    Returns:
        None where the view does not cover them: no holding was found, and its account was not
        downloaded completely, or the value of a holding is too old.
    """
    if request.account is not None:
        holding = view.holdings.get((request.account, request.conid))
        found = [holding] if holding is not None else []
    else:
        found = [h for (_, conid), h in view.holdings.items() if conid == request.conid]
    if any(holding.key in view.unconfirmed and holding.position for holding in found):
        return None
    return tuple(found) if found or view.covers(request.account) else None


# A batch claims the number of waiting requests divided by this.
SHARE = 4


def batch_limit(waiting: int, batch_size: int, largest: int) -> int:
    """Return how many requests to claim at once: a share of those that wait, within bounds.

    Each batch costs three commits, however many rows it has.

    Args:
        waiting: Requests that may be claimed now.
        batch_size: The lower bound.
        largest: The upper bound; it counts if the lower bound is greater.

    >>> [batch_limit(waiting, 50, 5_000) for waiting in (20, 200, 1_000, 100_000)]
    [50, 50, 250, 5000]
    >>> batch_limit(1_000, 50, 20)
    20
    """
    return min(max(batch_size, -(-waiting // SHARE)), largest)
