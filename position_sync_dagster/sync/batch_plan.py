"""What becomes of each request of a batch: the rows to write, and the row that answers it; pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from position_sync_dagster.domain.clock import SKEW, is_recent
from position_sync_dagster.domain.holding import BrokerPosition, Key
from position_sync_dagster.domain.position_update import (
    PositionUpdate,
    Source,
)
from position_sync_dagster.domain.queue_request import (
    Answer,
    QueuedPosition,
)
from position_sync_dagster.domain.valuation import Provenance, from_portfolio, says_the_same
from position_sync_dagster.lake import schema
from position_sync_dagster.sync.broker_view import BrokerView
from position_sync_dagster.sync.confirmations import CONFIRMED, with_confirmed


@dataclass(slots=True)
class BatchPlan:
    """The rows to write for a batch, and what becomes of its requests, by their ids.

    Attributes:
        answers: The row that answers each valued request: one of `rows`, or one of the ledger.
    """

    rows: list[PositionUpdate] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    not_held: list[str] = field(default_factory=list)
    not_covered: list[str] = field(default_factory=list)


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
    plan = BatchPlan()
    newest_or_planned = dict(newest)
    answered: dict[str, tuple[PositionUpdate, BrokerPosition]] = {}

    for request in batch:
        holdings = match_holdings(request, view)
        if holdings is None:
            plan.not_covered.append(request.request_id)
            continue

        if not holdings:
            plan.not_held.append(request.request_id)
            continue

        for holding in holdings:
            own_row = _own_row(request, holding, now, provenance)
            newest_row = newest_or_planned.get(holding.key)
            if own_row.update_id in written:
                decided = _after_own_row(request, own_row, newest_row, now)
            elif newest_row is not None and _answers(newest_row, own_row, view, now, keep):
                decided = _Decision(answer=newest_row)
            else:
                decided = _Decision(answer=own_row, row=own_row)

            if decided.row is not None:
                plan.rows.append(decided.row)
                newest_or_planned[holding.key] = decided.row

            if request.request_id in plan.answers:
                continue  # the row of another account answers it
            answer = decided.answer
            update_id = own_row.update_id if answer is None else answer.update_id
            plan.answers[request.request_id] = Answer(update_id=update_id)
            if answer is not None:
                answered[request.request_id] = (answer, holding)

    _date_answers(plan, answered, now)
    return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decision:
    """What follows for one holding of a request.

    Attributes:
        answer: The row that answers the request; None: its own row, which is in the ledger already.
        row: The row to write; None: none.
    """

    answer: PositionUpdate | None = None
    row: PositionUpdate | None = None


def _own_row(
    request: QueuedPosition, holding: BrokerPosition, now: datetime, provenance: Provenance
) -> PositionUpdate:
    """Return the row of a holding that a request would write."""
    row = from_portfolio(holding, source=Source.QUEUE, now=now, by=provenance)
    own_id = _own_id(request, holding.key)
    return replace(row, request_id=request.request_id, update_id=own_id)


def _after_own_row(
    request: QueuedPosition,
    own_row: PositionUpdate,
    newest_row: PositionUpdate | None,
    now: datetime,
) -> _Decision:
    """Decide about a request whose own row an earlier claim has written."""
    if newest_row is None or newest_row.position != own_row.position:
        # The request may also be that of a change which came after its own row.
        key = (own_row.account, own_row.conid)
        later_id = schema.content_id(now, request.request_id, *key)
        return _Decision(row=replace(own_row, update_id=later_id))
    # A later row of the holding does not show when the value of the own row was true.
    is_own = newest_row.update_id == own_row.update_id
    return _Decision(answer=newest_row if is_own else None)


def _date_answers(
    plan: BatchPlan,
    answered: Mapping[str, tuple[PositionUpdate, BrokerPosition]],
    now: datetime,
) -> None:
    """Record until when the broker has confirmed the value of each answer."""
    if not answered:
        return
    rows = schema.update_rows([row for row, _holding in answered.values()])
    holdings = {holding.key: holding for _row, holding in answered.values()}
    confirmed = with_confirmed(rows, schema.broker_rows(holdings.values(), None), now)
    for request_id, at in zip(answered, confirmed.get_column(CONFIRMED), strict=True):
        plan.answers[request_id] = replace(plan.answers[request_id], confirmed_at=at)


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
    ids: list[str] = []
    for request in batch:
        for holding in match_holdings(request, view) or ():
            row = newest.get(holding.key)
            newest_at = since if row is None else row.timestamp
            if newest_at > request.created_at - SKEW:
                ids.append(_own_id(request, holding.key))
    return ids


def _own_id(request: QueuedPosition, key: Key) -> str:
    return schema.content_id(request.created_at, request.request_id, *key)


def _answers(
    newest: PositionUpdate, row: PositionUpdate, view: BrokerView, now: datetime, keep: timedelta
) -> bool:
    """Return whether the newest row of a holding makes another row unnecessary.

    The stream may have written a row, such as that of a close, before it published the holding. It
    uses one clock for both, so that the two times can be compared. Rows of other writers are
    compared by their values, never by their time.
    """
    if newest.source is Source.STREAM and newest.session_id:
        captured_at = view.captured.get(newest.session_id)
        if captured_at is not None and newest.timestamp > captured_at:
            return True
    return is_recent(newest.timestamp, keep, now) and says_the_same(row, newest)


def match_holdings(request: QueuedPosition, view: BrokerView) -> tuple[BrokerPosition, ...] | None:
    """Return the holdings that a request asks for; one per account if it names no account.

    Returns:
        None where the view does not cover them: no holding was found, and its account was not
        downloaded completely, or the value of a holding is too old.
    """
    if request.account is not None:
        holding = view.holdings.get((request.account, request.conid))
        holdings = [] if holding is None else [holding]
    else:
        holdings = []
        for (_account, conid), holding in view.holdings.items():
            if conid == request.conid:
                holdings.append(holding)

    if any(holding.key in view.unconfirmed and holding.position for holding in holdings):
        return None
    return tuple(holdings) if holdings or view.covers(request.account) else None
