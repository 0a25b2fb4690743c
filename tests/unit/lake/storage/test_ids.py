"""Ids sort by time, and only ids reach a predicate."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from position_sync_dagster.errors import InvalidRequestError
from position_sync_dagster.lake.storage.ids import (
    content_id,
    created_at_of,
    id_literals,
    new_ids,
    text_literal,
)

NOW = datetime(2026, 1, 2, 15, 0, 0, 123456, tzinfo=UTC)


def test_ids_are_unique_uuids_that_ascend_even_beyond_a_millisecond_of_them():
    ids = new_ids(NOW, 10_000)
    assert ids == sorted(set(ids))
    assert all(UUID(i).version == 7 for i in ids)


def test_later_ids_are_greater():
    later = NOW + timedelta(milliseconds=1)
    assert new_ids(NOW, 1) < new_ids(later, 1)


def test_the_time_of_an_id_can_be_read_from_it():
    made = created_at_of(new_ids(NOW, 1)[0])
    assert made is not None
    assert abs(made - NOW) < timedelta(milliseconds=1)


@pytest.mark.parametrize("other", ["", "nope", "6ba7b810-9dad-41d1-80b4-00c04fd430c8"])
def test_an_id_of_another_kind_has_no_time(other):
    assert created_at_of(other) is None


def test_the_same_content_at_the_same_moment_has_the_same_id():
    one = content_id(NOW, "DU1", 1, 2.0, None)
    assert one == content_id(NOW, "DU1", 1, 2.0, None)
    assert one != content_id(NOW, "DU1", 1, 2.5, None)
    assert one != content_id(NOW + timedelta(seconds=1), "DU1", 1, 2.0, None)
    assert UUID(one).version == 8


@pytest.mark.parametrize("text", ["", "a'b", "a b", "a,b", "é", "a\n", "x" * 129, "a)"])
def test_a_text_that_is_not_an_id_never_reaches_a_predicate(text):
    with pytest.raises(InvalidRequestError):
        id_literals(["ok", text])


def test_ids_are_quoted():
    assert id_literals(["a-1", "b.2"]) == "'a-1','b.2'"


def test_a_quote_in_a_text_is_doubled():
    assert text_literal("it's 'so'") == "'it''s ''so'''"
