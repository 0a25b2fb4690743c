"""What the gateway of a stream says is counted by the day, and doctor says what was new."""

import pytest

from position_sync_dagster.component import PositionSyncComponent
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.processes.preflight import Level, check_heard
from position_sync_dagster.settings import load_settings
from tests.support.empty_lakes import put_tables
from tests.support.streams import Service, settings_for, simulate
from tests.support.waiting import eventually


@pytest.fixture
def money_lake(tmp_path):
    put_tables(tmp_path / "lake")
    return MoneyLake(tmp_path / "lake")


@pytest.mark.parametrize("money", [True, False])
async def test_what_a_stream_hears_is_counted_by_the_day_and_doctor_names_what_is_new(
    money, money_lake
):
    """The parts of the stream are those that its job gets, with money and without."""
    extension = PositionSyncComponent().extension(load_settings(money=money))
    async with simulate("small") as sim:
        lake = extension.lake(money_lake.path)
        service = Service(lake, settings_for(sim), complete=extension.stream_parts)
        await service.reaches()
        await eventually(lambda: sim.stats()["pnl_subscriptions"])
        sim.say([["250", "1", "Marion Holder"]])
        await service.end()

    rows = money_lake.heard_messages.records()
    assert {row.server_version for row in rows} == {178}
    counts = {(row.kind, row.name): row for row in rows}
    assert counts["message", "position"].count >= 9
    assert not counts["message", "position"].is_new

    new = {name for (_kind, name), row in counts.items() if row.is_new}
    assert new == {
        "message 250",
        "message 250 has 3 fields",
        "message 250: field 1 is number",
        "message 250: field 2 is text",
    }
    [finding] = check_heard(money_lake)
    assert finding.level is Level.WARNING
    assert "4 things are new in a week" in finding.text
    assert "message 250" in finding.text
    assert "rehearse" in finding.remedy


def test_doctor_says_nothing_of_what_was_never_heard(money_lake):
    assert check_heard(money_lake)[0].level is Level.GOOD
