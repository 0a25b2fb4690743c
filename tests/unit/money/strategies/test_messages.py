"""Which messages people want, as the strategies file says it, and when they are quiet."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.money.strategies.messages import Happened, Wanted
from position_sync_dagster.money.strategies.strategies_file import RuledFile, saved_messages

PAGE = Path(__file__).parents[4] / "docs" / "do" / "alerts.md"


def wanted(tmp_path: Path, text: str) -> Wanted:
    file = tmp_path / "strategies.yaml"
    file.write_text(text)
    return RuledFile(file).wanted


def test_the_example_of_the_page_is_read(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    chosen = wanted(tmp_path, example)
    assert not chosen.has(Happened.FILLED)
    assert not chosen.has(Happened.FILLED, ["other"])
    assert chosen.has(Happened.FILLED, ["other", "spy-weekly-condor"])
    assert not chosen.has(Happened.EXPIRED, ["spy-weekly-condor"])
    assert chosen.has(Happened.EXPIRED)


@pytest.mark.parametrize(
    ("hour", "is_quiet"), [(20, False), (21, True), (2, True), (5, True), (6, False), (12, False)]
)
def test_hours_over_midnight_are_quiet_where_they_are(tmp_path, hour, is_quiet):
    text = 'strategies: []\nmessages: {quiet: {from: "22:00", to: "07:00", timezone: Europe/Paris}}'
    at = datetime(2026, 3, 9, hour, 59, 59, tzinfo=UTC)  # an hour later there
    assert wanted(tmp_path, text).is_quiet(at) is is_quiet


def test_without_a_file_or_with_a_mistake_in_it_all_is_wanted_at_any_hour(tmp_path):
    file = tmp_path / "strategies.yaml"
    file.write_text("strategies: 7\n")
    for path in (None, file):
        chosen = saved_messages(path)
        assert all(map(chosen.has, Happened))
        assert not chosen.is_quiet(datetime.now(UTC))


@pytest.mark.parametrize(
    ("messages", "cause"),
    [
        ("{about: [assigned, refilled]}", "'refilled' cannot be used"),
        ('{quiet: {from: "22:00"}}', "'to' is missing"),
        ('{quiet: {from: "22:00", to: "25:00"}}', "'25:00' cannot be used"),
        ('{quiet: {from: "22:00", to: "7:00", timezone: Mars}}', "cannot be used"),
    ],
)
def test_a_mistake_is_named(tmp_path, messages, cause):
    with pytest.raises(StrategiesFileError, match=cause):
        wanted(tmp_path, f"strategies: []\nmessages: {messages}\n")
