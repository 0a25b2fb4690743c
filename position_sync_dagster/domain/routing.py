"""The route of each holding (streamed, queued or closed); pure."""

from collections.abc import Iterable

from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.leg import ActiveContract, LegState


def route(
    holdings: Iterable[BrokerPosition],
    legs: Iterable[ActiveContract],
    lines: frozenset[int],
    *,
    sec_types: Iterable[str],
) -> dict[Key, LegState]:
    """Decide the route of each holding; one line serves every holding of its conid.

    A conid with a line is STREAMED in each account that holds it, in a strategy or not, since that
    costs nothing. Without a line, an active leg is OVERFLOW and any other holding MONITORED.

    Args:
        holdings: Every holding of the login.
        legs: The legs of strategies.
        lines: The conids that hold a line.
        sec_types: Holdings of other security types have no route.

    Returns:
        (account, conid) → the state of the holding.
    """
    allowed = frozenset(sec_types)
    active: dict[int, set[str | None]] = {}
    for leg in legs:
        if leg.removed_at is None:
            active.setdefault(leg.conid, set()).add(leg.account)
    routes: dict[Key, LegState] = {}
    for holding in holdings:
        conid = holding.instrument.conid
        if holding.instrument.sec_type not in allowed:
            continue
        accounts = active.get(conid, set())
        if holding.position == 0:
            state = LegState.CLOSED
        elif conid in lines:
            state = LegState.STREAMED
        elif None in accounts or holding.account in accounts:
            state = LegState.OVERFLOW
        else:
            state = LegState.MONITORED
        routes[holding.key] = state
    return routes
