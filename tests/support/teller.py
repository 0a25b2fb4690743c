"""A program that evaluates `tell_people` again and again, as Dagster's daemon does, to be killed.

Run as `python -m tests.support.teller CURSOR`; it reads the settings of the environment. A cursor
is stored when its tick has ended, all at once; each stored one is a line of the output.
"""

import os
import sys
from pathlib import Path

import dagster as dg

from position_sync_dagster.defs.composition import Composition
from position_sync_dagster.money.defs import alerts as sensor
from position_sync_dagster.money.defs.extension import money_extension
from position_sync_dagster.money.reports import alerts
from position_sync_dagster.settings import load_settings


def main(cursor: Path) -> None:
    """Tick until somebody kills this program."""
    sensor.ALERT_AFTER_S = 0.0
    composition = Composition(extension=money_extension(load_settings()))
    messages = sensor.Messages(composition, alerts.Deliveries())
    with dg.DagsterInstance.ephemeral() as instance:
        while True:
            stored = cursor.read_text() if cursor.exists() else None
            with dg.build_sensor_context(instance=instance, cursor=stored) as context:
                result = sensor.tell_people(context, messages)
            if isinstance(result, dg.SensorResult) and result.cursor is not None:
                new = cursor.with_suffix(".new")
                new.write_text(result.cursor)
                os.replace(new, cursor)
            print(stored, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
