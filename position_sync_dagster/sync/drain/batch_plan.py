"""The plan of a claimed batch: which rows to write and how to mark each request; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.request import Answer, QueuedPosition
from position_sync_dagster.domain.streamed_holding import confirmed_time
from position_sync_dagster.domain.update import PositionUpdate, Source
from position_sync_dagster.domain.valuation import Provenance, from_portfolio, says_the_same
from position_sync_dagster.lake.schema.ids import content_id
from position_sync_dagster.sync.drain.broker_view import BrokerView

NOT_HELD = "No account of the login holds this conid."
NOT_COVERED = "the broker's answer did not cover every account"


class Outcome(StrEnum):
    """What the broker's data says about a request."""

    VALUED = "VALUED"
    NOT_HELD = "NOT_HELD"
    NOT_COVERED = "NOT_COVERED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The holdings that a request asks for, one per account where it names none."""

    outcome: Outcome
    holdings: tuple[BrokerPosition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """The rows to write for a batch, and its request ids by outcome.

    Attributes:
        answers: The row that answers each valued request: one of `rows`, or one of the ledger.
    """

    rows: tuple[PositionUpdate, ...] = ()
    valued: tuple[str, ...] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    not_held: tuple[str, ...] = ()
    not_covered: tuple[str, ...] = ()


def plan_batch(
    batch: Sequence[QueuedPosition],
    view: BrokerView,
    newest: Mapping[Key, PositionUpdate],
    *,
    batch_id: str,
    now: datetime,
    provenance: Provenance,
    keep: timedelta,
) -> BatchPlan:
    """Decide about each request of a batch.

    A holding needs no row where the newest row of the ledger says the same, or comes from the
    stream and is newer than the view. Then that row answers the request.

    The update_id of a row is derived from its request and its holding, so that a batch that is
    written again after a crash is recognized. It sorts by the time of the request, as ids of the
    table should.

    Args:
        batch: The requests.
        view: What the broker reports.
        newest: The newest row of each holding, as far as it is known.
        batch_id: Written into the rows.
        now: The time of the rows.
        provenance: The writer of the rows.
        keep: A row that is older than this is written again, even if it says the same.
    """
    rows: list[PositionUpdate] = []
    answers: dict[str, Answer] = {}
    ids: dict[Outcome, list[str]] = {outcome: [] for outcome in Outcome}
    for request in batch:
        match = match_holdings(request, view)
        ids[match.outcome].append(request.request_id)
        for holding in match.holdings:
            row = replace(
                from_portfolio(holding, source=Source.QUEUE, now=now, by=provenance),
                request_id=request.request_id,
                batch_id=batch_id,
                update_id=content_id(request.created_at, request.request_id, *holding.key),
            )
            known = newest.get(holding.key)
            if known is not None and _answers(known, row, view, now, keep):
                row = known
            else:
                rows.append(row)
            confirmed = confirmed_time(row, holding, now)
            answer = Answer(update_id=row.update_id, confirmed_at=confirmed)
            answers.setdefault(request.request_id, answer)
    return BatchPlan(
        rows=tuple(rows),
        valued=tuple(ids[Outcome.VALUED]),
        answers=answers,
        not_held=tuple(ids[Outcome.NOT_HELD]),
        not_covered=tuple(ids[Outcome.NOT_COVERED]),
    )


def _answers(
    known: PositionUpdate, row: PositionUpdate, view: BrokerView, now: datetime, keep: timedelta
) -> bool:
    """Return whether the newest row of a holding makes another row unnecessary.

    The stream may have written a row, such as that of a close, from what it has not published yet.
    It publishes by the same clock by which it writes, so that the two times may be compared. A row
    of any other writer counts by what it says, never by its time.
    """
    if known.timestamp > now + SKEW:
        return False
    captured_at = view.captured.get(known.session_id) if known.session_id else None
    if known.source is Source.STREAM and captured_at is not None and known.timestamp > captured_at:
        return True
    return now - known.timestamp < keep and says_the_same(row, known)


def match_holdings(request: QueuedPosition, view: BrokerView) -> Match:
    """Find the holdings that a request asks for.

    An absent holding is NOT_HELD only in a complete view. In an incomplete one it is NOT_COVERED,
    because an account that was not downloaded proves nothing. A holding whose value is too old is
    NOT_COVERED as well.
    """
    if request.account is not None:
        holding = view.holdings.get((request.account, request.conid))
        found = [holding] if holding is not None else []
    else:
        found = [h for (_, conid), h in view.holdings.items() if conid == request.conid]
    if any(holding.key in view.unconfirmed and holding.position for holding in found):
        return Match(outcome=Outcome.NOT_COVERED)
    if found:
        return Match(outcome=Outcome.VALUED, holdings=tuple(found))
    covered = view.covers(request.account)
    return Match(outcome=Outcome.NOT_HELD if covered else Outcome.NOT_COVERED)
