"""The clients of an object store: bounded, and without credentials."""

from datetime import date

from position_sync_dagster.lake.storage import object_store


def test_given_options_take_precedence_in_a_store():
    given = {"timeout": "1s", "aws_region": "eu-west-1"}
    assert given.items() <= object_store.delta_options(given).items()
    assert object_store.polars_options(given) == given | {"max_retries": 4}


def test_no_option_is_a_credential():
    names = {*object_store.delta_options(None), *object_store.polars_options(None)}
    assert names == {"connect_timeout", "timeout", "max_retries", "retry_timeout"}


def test_the_first_day_of_a_ledger_is_found_however_its_folder_is_named(tmp_path):
    (tmp_path / "ledger" / "date=2026-01-05").mkdir(parents=True)
    (tmp_path / "ledger" / "date=2026-01-02").mkdir()
    for path in (f"{tmp_path}/ledger", f"file://{tmp_path}/ledger"):
        assert object_store.first_ledger_day(path) == date(2026, 1, 2)
    assert object_store.first_ledger_day("s3://bucket/ledger") is None
