"""The run queue: Dagster's own, looked at twice a second."""

from typing import cast

from dagster import Field, QueuedRunCoordinator

LOOK_S = 0.5
"""Dagster's daemon waits in steps of this length; its own setting is in whole seconds."""


class PromptRunQueue(QueuedRunCoordinator):
    """Dagster's queue of runs, from which the daemon takes what waits every `LOOK_S`.

    A single request has its row after four seconds: it waits for the sensor, then for this look,
    and then for the drain. With a look each second it would be 0.3 s more.
    """

    @property
    def dequeue_interval_seconds(self) -> float:  # type: ignore[override]
        """Return the seconds between two looks."""
        return LOOK_S

    @classmethod
    def config_type(cls) -> dict[str, Field]:
        """Return the settings of Dagster's queue, without the seconds between two looks."""
        own = cast("dict[str, Field]", super().config_type())
        return {name: field for name, field in own.items() if name != "dequeue_interval_seconds"}
