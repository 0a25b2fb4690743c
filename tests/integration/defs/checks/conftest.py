"""Run one check as Dagster does."""

from collections.abc import Callable
from datetime import timedelta

import dagster as dg
import pytest

from position_sync_dagster.defs.checks import tables


@pytest.fixture
def check(materialize) -> Callable[[dg.AssetChecksDefinition], dg.AssetCheckEvaluation]:
    """Run one check and return its evaluation."""

    def run(definition: dg.AssetChecksDefinition) -> dg.AssetCheckEvaluation:
        result = materialize(definition, selection=dg.AssetSelection.all_asset_checks())
        (found,) = result.get_asset_check_evaluations()
        return found

    return run


@pytest.fixture
def shown() -> Callable[[dg.AssetCheckEvaluation], list[dict]]:
    """Return the rows that a failing check names."""
    return lambda found: [dict(record.data) for record in found.metadata["rows"].records]


@pytest.fixture
def later(set_clock: Callable[..., None]) -> Callable[[timedelta], None]:
    """Let the checks of the tables be evaluated this much later."""
    return lambda delta: set_clock(tables, delta)
