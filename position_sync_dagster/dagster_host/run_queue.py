"""The run queue: Dagster's own, polled twice a second."""

from typing import cast

from dagster import Field, QueuedRunCoordinator

LOOK_S = 0.5
"""Polling interval of the queue, in seconds; Dagster's own setting takes whole seconds only."""


class PromptRunQueue(QueuedRunCoordinator):
    """Dagster's run queue, from which the daemon takes waiting runs every `LOOK_S`.

    A single request has its row after 4 s: it waits for the sensor, for this queue and for the
    drain. Polling once a second would add 0.3 s.
    """

    @property
    def dequeue_interval_seconds(self) -> float:  # type: ignore[override]
        """Return the polling interval in seconds."""
        return LOOK_S

    @classmethod
    def config_type(cls) -> dict[str, Field]:
        """Return the settings of Dagster's queue, without the polling interval."""
        own = cast("dict[str, Field]", super().config_type())
        return {name: field for name, field in own.items() if name != "dequeue_interval_seconds"}
