"""When the contracts of the simulator trade, and how contract details say so."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ib_gateway_simulator import load_book
from ib_gateway_simulator.market.sessions import Sessions, checked, listing
from position_sync_dagster.domain.instrument import parse_trading_hours

CALL = load_book("small").contracts[921000001]
MONDAY, SATURDAY = "2026-03-09", "2026-03-14"


@given(st.sampled_from(["", "CLOSED", "0930-1600", "0000-2359"]), st.integers(0, 365 * 24 * 60))
def test_what_the_details_list_is_when_the_lines_tick(hours, minute):
    sessions, now = Sessions(hours), datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    listed = parse_trading_hours(sessions.listing(CALL, now.timestamp()), CALL.time_zone)
    assert listed.is_open(now) is sessions.is_open(CALL, now.timestamp())


@pytest.mark.parametrize(
    ("hours", "at", "is_open"),
    [
        ("", f"{SATURDAY} 03:00", True),
        ("CLOSED", f"{MONDAY} 15:00", False),
        ("0930-1600", f"{MONDAY} 13:29", False),  # 9:29 in New York, with summer time
        ("0930-1600", f"{MONDAY} 13:30", True),
        ("0930-1600", f"{MONDAY} 20:00", False),
        ("0930-1600", f"{SATURDAY} 15:00", False),
    ],
)
def test_a_contract_trades_by_the_clock_of_its_exchange(hours, at, is_open):
    now = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert Sessions(hours).is_open(CALL, now.timestamp()) is is_open


def test_hours_of_one_contract_come_before_those_of_all_until_these_are_set_again():
    sessions = Sessions("CLOSED")
    sessions.set(CALL.conid, "")
    assert sessions.is_open(CALL, 0.0)
    sessions.set(None, "CLOSED")
    assert not sessions.is_open(CALL, 0.0)


def test_days_are_listed_in_the_form_of_the_gateway():
    days = listing(date(2026, 3, 13), "0930-1600").split(";")
    assert days[:2] == ["20260313:0930-20260313:1600", "20260314:CLOSED"]
    assert listing(date(2026, 3, 13)).startswith("20260313:0000-20260314:0000;20260314:0000-")


@pytest.mark.parametrize("hours", ["1600-0930", "0930-0930", "0960-1600", "2400-2500", "closed"])
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(ValueError, match="0930-1600"):
        checked(hours)
