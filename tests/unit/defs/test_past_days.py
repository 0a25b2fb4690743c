"""The first day that is recorded."""

from datetime import date

from position_sync_dagster.defs.assets import past_days


def test_the_first_day_of_a_ledger_is_found_however_its_folder_is_named(tmp_path):
    (tmp_path / "ledger" / "date=2026-01-05").mkdir(parents=True)
    (tmp_path / "ledger" / "date=2026-01-02").mkdir()
    for path in (f"{tmp_path}/ledger", f"file://{tmp_path}/ledger"):
        assert past_days.first_ledger_day(path) == date(2026, 1, 2)
    assert past_days.first_ledger_day("s3://bucket/ledger") is None
