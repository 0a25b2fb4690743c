"""Dagster alone, beside the program: sensors as often as ours, and a long run, that do nothing."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil

from position_sync_dagster.defs.resources import TICK_S
from position_sync_dagster.defs.stream import SUPERVISE_S
from position_sync_dagster.money.defs.alerts import WITHOUT_RECEIVERS_S
from position_sync_dagster.processes.ports import LOOPBACK, first_free

PROJECT = f"""
import time

import dagster as dg


@dg.op
def wait():
    while True:
        time.sleep(60)


@dg.job(executor_def=dg.in_process_executor)
def long_run():
    wait()


def sensor(name, every_s, result):
    return dg.SensorDefinition(
        name=name, evaluation_fn=lambda _context: result, job=long_run,
        minimum_interval_seconds=every_s, default_status=dg.DefaultSensorStatus.RUNNING,
    )


idle = dg.SkipReason("nothing is due")
defs = dg.Definitions(
    jobs=[long_run],
    sensors=[
        sensor("drain", {TICK_S}, idle),
        sensor("supervise", {SUPERVISE_S}, dg.RunRequest(run_key="the only one")),
        *(sensor(name, {WITHOUT_RECEIVERS_S}, idle) for name in ("remake", "tell")),
    ],
)
"""


@contextmanager
def stock_dagster(home: Path) -> Iterator[list[int]]:
    """Run Dagster's three programs in a home of their own; give their process ids.

    All that is configured is that nothing is reported to Dagster's authors.
    """
    home.mkdir()
    (home / "project.py").write_text(PROJECT)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (home / "workspace.yaml").write_text(
        f"load_from: [{{grpc_server: {{socket: {home}/code.sock, location_name: stock}}}}]\n"
    )
    with dg.DagsterInstance.from_config(str(home)):
        pass  # the storage is made once, not by three programs together
    commands = (
        f"dagster api grpc --socket {home}/code.sock --python-file project.py"
        " --location-name stock",
        "dagster-daemon run -w workspace.yaml",
        f"dagster-webserver -w workspace.yaml --host {LOOPBACK} --port {first_free(22_000)}",
    )
    with ExitStack() as stack:
        output = stack.enter_context(home.with_suffix(".log").open("w"))
        programs = []
        for command in commands:
            script, *options = command.split()
            program = subprocess.Popen(
                [str(Path(sys.executable).with_name(script)), *options],
                cwd=home,
                env={"DAGSTER_HOME": str(home), "PATH": ""},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            stack.callback(_end, program)
            programs.append(program.pid)
            while not (home / "code.sock").exists() and program.poll() is None:
                time.sleep(0.1)  # the others look for it
        yield programs


def _end(program: subprocess.Popen[bytes]) -> None:
    """Kill a program and all that it started, if it has not ended itself."""
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(program.pid).children(recursive=True):
            process.kill()
    program.kill()
    program.wait()
