"""Sessions of a simulated broker: what the program explains is what the broker's wealth grew by.

A week of them, and a month with two gaps of time: around Christmas and New Year, and while New York
changes its clocks. Deliveries, settlements in cash, a split, a merger, transfers, a roll, accruals,
conversions, commissions in other currencies; statements that come late, are corrected, or are named
again by another query.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from position_sync_dagster.definitions import defs
from position_sync_dagster.settings import load_settings
from tests.support.month.broker import Broker, Script
from tests.support.month.comparison import Deviation, play
from tests.support.month.program import Program
from tests.support.month.script import FIRST_WEEK, MONTH


@pytest.fixture
def program(lake, folder: Path, instance, monkeypatch) -> Iterator[Program]:
    """Return the program with empty tables; it follows bonds, bills and funds too."""
    monkeypatch.setenv("POSITION_SYNC_DAILY_START", "2025-12-15")
    monkeypatch.setenv("POSITION_SYNC_SEC_TYPES", "OPT,FOP,STK,FUT,BOND,BILL,FUND")
    logging.disable(logging.INFO)  # Dagster's lines of a hundred runs
    yield Program(lake=lake, settings=load_settings(), instance=instance, jobs=defs())
    logging.disable(logging.NOTSET)


def deviations(program: Program, script: Script, seed: int) -> list[Deviation]:
    return play(program, Broker(seed), script)


def test_a_week_is_explained_to_the_cent_each_evening_and_each_morning(program):
    assert not deviations(program, FIRST_WEEK, seed=1)


def test_a_month_is_explained_to_the_cent_also_after_statements_that_were_wrong_or_late(program):
    assert not deviations(program, MONTH, seed=2)
