"""How the package's errors read in Dagster."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from position_sync_dagster.errors import PositionSyncError


@contextmanager
def dagster_failures() -> Iterator[None]:
    """Turn an error of the package into a failure that says what happened and what to do.

    Such an error is a finding, not a bug: its traceback would only hide its message.
    """
    try:
        yield
    except PositionSyncError as error:
        raise dg.Failure(
            description=str(error),
            metadata={"error": type(error).__name__, "what": error.what, "remedy": error.remedy},
            allow_retries=False,
        ) from None
