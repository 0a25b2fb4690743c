"""Blocking work of many tables at once."""

import time

import pytest

from position_sync_dagster.lake.storage.threads import together


def test_results_come_in_the_order_of_the_items():
    assert together(lambda number: number * 2, range(20)) == [2 * number for number in range(20)]


def test_after_a_failure_nothing_runs_any_more():
    begun = set()
    ended = set()

    def work(number: int) -> None:
        begun.add(number)
        if number == 0:
            raise OSError("refused")
        time.sleep(0.02)
        ended.add(number)

    with pytest.raises(OSError, match="refused"):
        together(work, range(200))
    assert begun == ended | {0}
    assert len(begun) < 200
