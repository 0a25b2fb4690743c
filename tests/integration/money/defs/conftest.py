"""The Dagster instance and the lake that the core's definitions are tested with."""

from tests.integration.defs.conftest import (
    _migrations_are_read_once,
    composition,
    confirmed_at_once,
    folder,
    instance,
    instance_on_disk,
    lake,
    receiver,
    settings,
    strategies_file,
    world,
)

__all__ = [
    "_migrations_are_read_once",
    "composition",
    "confirmed_at_once",
    "folder",
    "instance",
    "instance_on_disk",
    "lake",
    "receiver",
    "settings",
    "strategies_file",
    "world",
]
