"""Updates from callers are read as they are meant, or refused with the name of the field."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.domain.holding import OwnUpdates
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.errors import InvalidRequestError
from position_sync_dagster.lake import position_updates
from position_sync_dagster.lake.position_updates import (
    PositionUpdatesTable,
    coerce_update,
    identified,
)

DBL_MAX = 1.7976931348623157e308


@pytest.fixture
def ledger(tmp_path):
    return PositionUpdatesTable(tmp_path / "position_updates", fsync=False)


@pytest.mark.parametrize("name", ["timestamp", "value_time"])
def test_a_time_without_a_zone_is_local_time(ledger, make_update, name):
    moment = datetime(2026, 1, 2, 15, 0, 1)  # noqa: DTZ001 - the point of the test
    ledger.sync.append([replace(make_update(), **{name: moment})])
    [stored] = ledger.sync.latest_updates()
    assert getattr(stored, name) == moment.astimezone(UTC)


@pytest.mark.parametrize(
    ("given", "stored"),
    [("P", Right.PUT), ("call", Right.CALL), ("", None), (None, None), (Right.PUT, Right.PUT)],
)
def test_a_right_may_be_spelled_as_ib_spells_it(ledger, make_update, given, stored):
    ledger.sync.append([replace(make_update(), right=given)])
    assert [u.right for u in ledger.sync.latest_updates()] == [stored]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("20260220", date(2026, 2, 20)),
        ("2026-02-20", date(2026, 2, 20)),
        (20260220, date(2026, 2, 20)),
        (datetime(2026, 2, 20, tzinfo=UTC), date(2026, 2, 20)),
        ("", None),
    ],
)
def test_an_expiry_may_be_text(ledger, make_update, given, stored):
    ledger.sync.append([replace(make_update(), expiry=given)])
    assert [u.expiry for u in ledger.sync.latest_updates()] == [stored]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, DBL_MAX, -DBL_MAX, 1.797e308])
def test_a_number_that_is_not_finite_is_unknown(ledger, make_update, value):
    ledger.sync.append([replace(make_update(), market_price=value, delta=value)])
    [stored] = ledger.sync.latest_updates()
    assert (stored.market_price, stored.delta, stored.market_value) == (None, None, 150.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("position", None),
        ("position", math.nan),
        ("position", DBL_MAX),
        ("position", "3"),
        ("multiplier", math.inf),
        ("market_price", "1.5"),
        ("market_price", True),
        ("right", "X"),
        ("expiry", "20260230"),
        ("timestamp", None),
        ("timestamp", "2026-01-02"),
        ("timestamp", date(2026, 1, 2)),
        ("conid", "1"),
        ("conid", None),
        ("conid", 1.5),
        ("symbol", None),
        ("symbol", 5),
        ("source", "RADIO"),
        ("source", None),
        ("price_kind", "GUESS"),
        ("market_data_type", "live"),
    ],
)
def test_a_value_that_cannot_be_stored_is_refused_with_the_name_of_its_field(
    ledger, make_update, field, value
):
    ledger.sync.append([make_update(2)])
    with pytest.raises(InvalidRequestError, match=f"{field} .*cannot be stored") as caught:
        ledger.sync.append([make_update(3), replace(make_update(), **{field: value})])
    assert repr(value) in str(caught.value)
    assert caught.value.remedy
    assert [u.conid for u in ledger.sync.latest_updates()] == [2], "all or nothing"


def test_an_update_that_needs_no_change_is_returned_as_it_is(make_update):
    update = make_update()
    assert coerce_update(update) is update


def test_our_own_updates_are_not_checked_field_by_field(make_update, monkeypatch):
    monkeypatch.setattr(position_updates, "coerce_update", None)
    assert identified(OwnUpdates([make_update(1)]))["conid"].to_list() == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_of_our_own_that_is_not_finite_is_unknown_too(ledger, make_update, value):
    updates = [replace(make_update(1), market_value=value), make_update(2)]
    ledger.sync.append(OwnUpdates(updates))
    stored = {one.conid: one.market_value for one in ledger.sync.latest_updates()}
    assert stored == {1: None, 2: 150.0}
