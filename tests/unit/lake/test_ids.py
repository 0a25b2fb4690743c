"""Ids sort by time."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from position_sync_dagster.lake.schema import content_id, new_ids

NOW = datetime(2026, 1, 2, 15, 0, 0, 123456, tzinfo=UTC)


def test_ids_are_unique_uuids_that_ascend_even_beyond_a_millisecond_of_them():
    ids = new_ids(NOW, 10_000)
    assert ids == sorted(set(ids))
    assert all(UUID(i).version == 7 for i in ids)


def test_an_id_begins_with_its_time_in_milliseconds():
    [made] = new_ids(NOW, 1)
    assert UUID(made).int >> 80 == int(NOW.timestamp() * 1000)


def test_the_same_content_at_the_same_moment_has_the_same_id():
    first_id = content_id(NOW, "DU1", 1, 2.0, None)
    assert first_id == content_id(NOW, "DU1", 1, 2.0, None)
    assert first_id != content_id(NOW, "DU1", 1, 2.5, None)
    assert first_id != content_id(NOW + timedelta(seconds=1), "DU1", 1, 2.0, None)
    assert UUID(first_id).version == 8
