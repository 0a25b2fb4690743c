"""Jobs of a code location of which runs are launched."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import dagster as dg
import psutil


def names_of_threads(pid: int) -> list[str]:
    """Return the names of a process's threads, those of native libraries too."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sorted((task / "comm").read_text().strip() for task in tasks)


@dg.op
def show(context: dg.OpExecutionContext) -> None:
    """Log what the process is."""
    process = psutil.Process()
    shown = {
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "parent": " ".join(process.parent().cmdline()),
        "parents_threads": names_of_threads(process.ppid()),
        "main_thread": threading.current_thread() is threading.main_thread(),
        "cwd": os.getcwd(),
        "niceness": process.nice(),
        "main_module_again": sys.modules["__main__"].__name__ != "__main__",
        "definitions_imported": "position_sync_dagster.definitions" in sys.modules,
    }
    context.log_event(dg.AssetObservation("shown", metadata={"shown": dg.JsonMetadataValue(shown)}))
    print(f"printed by {os.getpid()}")


@dg.op
def wait_for_an_interrupt() -> None:
    """Wait longer than any test."""
    time.sleep(3600)


@dg.op
def end_the_process() -> None:
    """End as after a fault of a library: without a word."""
    sys.stdout.flush()
    os._exit(3)


@dg.job(executor_def=dg.in_process_executor)
def shows() -> None:
    show()


@dg.job(executor_def=dg.in_process_executor, tags={"dagster/priority": "1"})
def shows_first() -> None:
    show()


@dg.job(executor_def=dg.in_process_executor)
def waits() -> None:
    wait_for_an_interrupt()


@dg.job(executor_def=dg.in_process_executor)
def ends_itself() -> None:
    end_the_process()


def shown(record: dg.EventLogRecord) -> dict[str, object]:
    """Return what `show` logged."""
    value = record.asset_observation.metadata["shown"].value
    return json.loads(json.dumps(value))


defs = dg.Definitions(jobs=[shows, shows_first, waits, ends_itself])
