"""The private symbols of the package dagster that are imported, each with its reason.

Dagster exports none of them. A release that moves one fails at the import of this module, so that
the tests of the next version name it at once. Beside them `component.py` copies records of
`dagster_shared`, and `webserver.py` takes the application of `dagster_webserver`.
"""

# The states of sensors that the instance returns, whose stored times a clock set back leaves ahead.
from dagster._core.definitions.run_request import InstigatorType

# The mark of an output without an event: `WITHOUT_EVENTS`.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
)

# The event log's tables: Dagster has no way to remove results of checks that no run wrote.
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage

# The tag of a run that names its code location: other projects may have jobs of the same name.
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

__all__ = [
    "REPOSITORY_LABEL_TAG",
    "WITHOUT_EVENTS",
    "InstigatorState",
    "InstigatorStatus",
    "InstigatorType",
    "SensorInstigatorData",
    "SqlEventLogStorage",
    "SqliteEventLogStorage",
]

# Metadata with which an output has no event: assets downstream run, and no partition counts as
# filled. Without it, one day without a source would keep the profits of all days of its run back.
WITHOUT_EVENTS = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
