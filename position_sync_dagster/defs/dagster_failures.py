"""How the package's errors read in Dagster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isgeneratorfunction
from typing import ParamSpec, TypeVar, cast

import dagster as dg

from position_sync_dagster.errors import PositionSyncError

P = ParamSpec("P")
R = TypeVar("R")


def dagster_failures(function: Callable[P, R]) -> Callable[P, R]:
    """Turn an error of the package into a Dagster failure with its cause and its remedy.

    Such an error is a finding, not a bug: its traceback would only hide its message.

    Example:
        @dg.asset
        @dagster_failures
        def position_updates(position_sync: PositionSyncResource) -> None: ...
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _translated():
            return function(*args, **kwargs)

    @wraps(function)
    def generate(*args: P.args, **kwargs: P.kwargs) -> Iterator[object]:
        with _translated():
            yield from cast("Iterator[object]", function(*args, **kwargs))

    return cast("Callable[P, R]", generate) if isgeneratorfunction(function) else run


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PositionSyncError as error:
        raise dg.Failure(
            description=str(error),
            metadata={
                "error": type(error).__name__,
                "what": error.what,
                "remedy": error.remedy,
            },
            allow_retries=False,
        ) from None
