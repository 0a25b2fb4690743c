"""The stream on a recording: what it costs, and how fast, with a session that was real."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.outcome import Line
from ib_gateway_simulator.recordings.recording import load_recording
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.money.lake import MoneyLake
from tests.support.recorded_session import SMALL, legs_of


def recorded(bench: Bench) -> None:
    """Play a recording (`--recording FILE`, else the small one of the tests) to the stream."""
    path = bench.recording or SMALL
    recording = load_recording(path)
    span_s = recording.entries[-1].at_s
    lake = bench.new_folder("recorded")
    lake.mkdir(parents=True)
    legs = legs_of(recording)
    asyncio.run(_activate(lake, legs))
    player = subprocess.Popen(
        [
            sys.executable, "-m", "ib_gateway_simulator", "--port", "0",
            "--replay", str(Path(path).absolute()),
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert player.stdout is not None
        port = json.loads(player.stdout.readline())["port"]
        command = [sys.executable, "-m", "benchmarks.stream.streamer", lake, port, span_s + 10]
        done = subprocess.run(map(str, command), stdout=subprocess.PIPE, check=True)
    finally:
        player.terminate()
        player.wait()
    found = json.loads(done.stdout.splitlines()[-1])
    state = f"{len(legs)} lines"
    rows = [
        Line(what="rows", state=state, ours=found["rows"], unit=""),
        Line(what="commits", state=state, ours=found["commits"], unit=""),
        Line(what="reconnects", state=state, ours=found["reconnects"], unit=""),
        Line(what="processor time", state=state, ours=found["processor_s"], unit="s"),
    ]
    bench.report.add(f"The stream on {Path(path).name}, {span_s:.0f} s", rows)


async def _activate(folder: Path, legs: list[ActiveContract]) -> None:
    lake = MoneyLake(folder)
    await lake.registry.initialize()
    await lake.registry.add_many(legs)
