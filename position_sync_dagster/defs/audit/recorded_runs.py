"""How the steps of Dagster's runs get into the table `runs`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any, ParamSpec, TypeVar, cast

import dagster as dg

from position_sync_dagster.defs.resources import PositionSyncResource

P = ParamSpec("P")
R = TypeVar("R")

COLUMNS = {
    "rows": "rows",
    "delta_version": "version_to",
    "delta_version_from": "version_from",
    "first_batch_id": "first_batch_id",
    "last_batch_id": "last_batch_id",
    "claimed": "claimed",
    "succeeded": "succeeded",
    "failed": "failed",
    "released": "released",
    "enqueued": "enqueued",
    "commits": "commits",
    "changed": "commits",
    "note": "reason",
}
"""The metadata of an event that a record keeps, and the column of each."""


def recorded(step: str, table: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Record each run of an asset or an op in the table `runs`: one commit, at its end.

    The record keeps the counts of the event that the step returns, or of the last one that it
    yields, so the two say the same.

    Args:
        step: The name of the step in the record.
        table: The table that the step writes.

    Example:
        @dg.asset
        @dagster_failures
        @recorded("latest_positions", "latest_positions")
        def latest_positions(context, position_sync: PositionSyncResource) -> dg.MaterializeResult:
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with _recorder(step, table, args, kwargs) as note:
                result = function(*args, **kwargs)
                note(result)
            return result

        @wraps(function)
        def generate(*args: P.args, **kwargs: P.kwargs) -> Iterator[object]:
            with _recorder(step, table, args, kwargs) as note:
                for event in cast("Iterator[object]", function(*args, **kwargs)):
                    note(event)
                    yield event

        return cast("Callable[P, R]", generate) if isgeneratorfunction(function) else run

    return decorate


@contextmanager
def _recorder(
    step: str, table: str | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[Callable[[object], None]]:
    """Record what happens within; give a function that takes the events of the step."""
    position_sync = kwargs.get("position_sync")
    context = next((one for one in args if hasattr(one, "run")), None)
    if not isinstance(position_sync, PositionSyncResource) or context is None:
        yield lambda event: None
        return
    from position_sync_dagster.sync.run_recorder import RunRecorder

    recorder = RunRecorder(
        position_sync.lake.runs.sync,
        run_id=context.run.run_id,
        job=context.run.job_name,
        step=step,
        gateway_id=_login_of(position_sync),
    )
    recorder.note(table_name=table, partitions=_partitions(context))

    def note(event: object) -> None:
        if isinstance(event, dg.MaterializeResult | dg.AssetMaterialization):
            recorder.note(**columns_of_event(event.metadata or {}))

    with recorder:
        yield note


def columns_of_event(metadata: Any) -> dict[str, Any]:
    """Return the columns of a record that the metadata of an event fill; pure.

    A name may have a prefix, as in `drain/rows`.
    """
    values = {name.rpartition("/")[2]: _plain(value) for name, value in metadata.items()}
    found = {column: values[name] for name, column in COLUMNS.items() if name in values}
    if "claimed" in found:  # a drain leaves out what did not happen
        found = {"failed": 0, "released": 0} | found
    if not found.get("reason"):
        found.pop("reason", None)
    return found


def _login_of(position_sync: PositionSyncResource) -> str | None:
    """Return the login of a step, where there is only one."""
    settings = position_sync.settings
    return settings.gateway_id if settings.gateways_file is None else None


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, dg.MetadataValue) else value


def _partitions(context: Any) -> str | None:
    if not getattr(context, "has_partition_key_range", False) and not context.has_partition_key:
        return None
    keys = context.partition_keys
    return keys[0] if len(keys) == 1 else f"{keys[0]}...{keys[-1]}"
