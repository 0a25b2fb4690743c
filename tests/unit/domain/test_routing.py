"""The route of each holding."""

from datetime import UTC, datetime

from position_sync_dagster.domain.leg import LegState, route
from tests.support.holdings import make_holding
from tests.support.legs import leg

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


def held(conid, account, position=1.0, sec_type="OPT"):
    return make_holding(conid, NOW, account=account, position=position, sec_type=sec_type)


def test_each_holding_has_its_route():
    holdings = [
        held(1, "A"),
        held(1, "B"),
        held(2, "A"),
        held(2, "B"),
        held(3, "A"),
        held(4, "A", position=0.0),
        held(5, "A", sec_type="BOND"),
    ]
    routes = route(holdings, [leg(1), leg(2, account="A")], frozenset({1}), sec_types=("OPT",))
    assert routes == {
        ("A", 1): LegState.STREAMED,
        ("B", 1): LegState.STREAMED,
        ("A", 2): LegState.OVERFLOW,
        ("B", 2): LegState.MONITORED,
        ("A", 3): LegState.MONITORED,
        ("A", 4): LegState.CLOSED,
    }
