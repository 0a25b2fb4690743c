"""The clients of an object store: bounded, and without credentials."""

from position_sync_dagster.lake.storage import object_store


def test_given_options_take_precedence_in_a_store():
    given = {"timeout": "1s", "aws_region": "eu-west-1"}
    assert given.items() <= object_store.delta_options(given).items()
    assert object_store.polars_options(given) == given | {"max_retries": 4}


def test_no_option_is_a_credential():
    names = {*object_store.delta_options(None), *object_store.polars_options(None)}
    assert names == {"connect_timeout", "timeout", "max_retries", "retry_timeout"}
