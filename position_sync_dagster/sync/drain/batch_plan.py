"""The plan of a claimed batch: which rows to write and how to mark each request; pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.pricing.valuation import Provenance, from_portfolio
from position_sync_dagster.domain.request import QueuedPosition
from position_sync_dagster.domain.update import PositionUpdate, Source
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
    """The rows to write for a batch, and its request ids by outcome."""

    rows: tuple[PositionUpdate, ...] = ()
    valued: tuple[str, ...] = ()
    not_held: tuple[str, ...] = ()
    not_covered: tuple[str, ...] = ()


def plan_batch(
    batch: Sequence[QueuedPosition],
    view: BrokerView,
    *,
    batch_id: str,
    now: datetime,
    provenance: Provenance,
) -> BatchPlan:
    """Decide about each request of a batch.

    The update_id of a row is derived from its request and its holding, so that a batch that is
    written again after a crash is recognized. It sorts by the time of the request, as ids of the
    table should.
    """
    rows: list[PositionUpdate] = []
    ids: dict[Outcome, list[str]] = {outcome: [] for outcome in Outcome}
    for request in batch:
        match = match_holdings(request, view)
        ids[match.outcome].append(request.request_id)
        for holding in match.holdings:
            row = from_portfolio(holding, source=Source.QUEUE, now=now, by=provenance)
            rows.append(
                replace(
                    row,
                    request_id=request.request_id,
                    batch_id=batch_id,
                    update_id=content_id(request.created_at, request.request_id, *holding.key),
                )
            )
    return BatchPlan(
        rows=tuple(rows),
        valued=tuple(ids[Outcome.VALUED]),
        not_held=tuple(ids[Outcome.NOT_HELD]),
        not_covered=tuple(ids[Outcome.NOT_COVERED]),
    )


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
    return Match(outcome=Outcome.NOT_HELD if view.complete else Outcome.NOT_COVERED)
