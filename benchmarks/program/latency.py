"""From something that happens to the row that tells it, through the whole program."""

import asyncio
import os
import random
import re
import signal
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from typing import Any, Protocol

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.program.running import Running, at_any_moment
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.money.lake import MoneyLake

LEGS, STREAMED = 200, 20

# Between two ticks of the sensor: a request comes at any moment of it.
SENSOR_S = 5.0

TICKS = """query($sensor: SensorSelector!) {
  sensorOrError(sensorSelector: $sensor) { ... on Sensor { sensorState { ticks(limit: 60) {
    timestamp endTimestamp status skipReason } } } }
  assetNodes { assetMaterializations(limit: 60) { timestamp } } }"""

# What the reason of a tick says that did something, or for which something waits.
WORKED = re.compile(r"\d claimed, |pending [1-9]")


class Asked(Protocol):
    """A program whose UI's server can be asked."""

    def ask(self, query: str, **variables: Any) -> Any:
        """Give the data of an answer."""
        ...


def latency(bench: Bench) -> None:
    """Run the demo; let things happen at any moment, kill its stream, end it."""
    home = bench.new_folder("program")
    rounds = bench.size(12, 2)
    with closing(Running(home)) as running:
        running.until(lambda: running.newest().height >= LEGS)
        started = running.age_s()
        running.until(lambda: running.lines() >= STREAMED)
        state = f"{LEGS} legs, {STREAMED} streamed"
        lines = [_one("start to 200 rows", state, started, 60.0)]
        lines += _ticks(running, state)
        lines += _requests(running, bench.size(24, 2))
        lines += _changes(running, rounds)
        lines += [
            _many("kill -9 of the stream to all lines again", _kills(running, rounds // 4 or 1), 60)
        ]
        lines += [_one("Ctrl-C to no process left", state, running.end(), 5.0)]
    bench.report.add("The whole program", lines)


def _requests(running: Running, rounds: int) -> list[Line]:
    """Time single requests, each from its insert to the commit of its row and its end."""
    queue = MoneyLake(running.home / "lake").queue.sync
    legs = running.newest().filter(source="QUEUE").sample(rounds)
    # Each at its own part of the time between two ticks: by chance, the median varies by 0.5 s.
    moments = [(part + random.random()) * SENSOR_S / rounds for part in range(rounds)]
    random.shuffle(moments)
    took = []
    for leg, moment in zip(legs.iter_rows(named=True), moments, strict=True):
        time.sleep(moment)
        request = queue.insert(leg["conid"], leg["symbol"], account=leg["account"])
        took.append(running.until(lambda request=request: running.request(request) == "SUCCESS"))
    p95 = statistics.quantiles(took, n=20, method="inclusive")[-1]
    return [
        _many("insert of a request to its row", took, 4.0),
        _one("insert of a request to its row, p95", f"{rounds} requests", p95, 7.0),
    ]


def _changes(running: Running, rounds: int) -> list[Line]:
    """Time fills, closes and legs that are made active, each to its row."""
    rows = running.newest()
    streamed = sorted(rows.filter(source="STREAM")["conid"])
    queued = sorted(rows.filter(source="QUEUE")["conid"])
    random.shuffle(queued)
    filled = [_change(running, "fill", random.choice(streamed)) for _ in range(rounds)]
    monitored = [_change(running, "fill", queued.pop()) for _ in range(rounds)]
    closed = [_change(running, "close", conid) for conid in streamed[: rounds // 2]]
    lake = MoneyLake(running.home / "lake")
    active = [_activated(running, lake, queued.pop()) for _ in range(rounds)]
    return [
        _many("fill of a streamed leg to row", filled, 2.0),
        _many("close of a streamed leg to row", closed, 2.0),
        _many("fill of a monitored leg to row", monitored, 15.0),
        _many("leg made active to streamed row", active, 5.0),
    ]


def _change(running: Running, action: str, conid: int) -> float:
    before = running.row(conid)["position"]
    more = {"quantity": 1 if before > 0 else -1} if action == "fill" else {}
    wanted = before + more["quantity"] if more else 0.0
    at_any_moment()
    running.happens(action, conid, **more)
    return running.until(lambda: running.row(conid)["position"] == wanted)


def _activated(running: Running, lake: MoneyLake, conid: int) -> float:
    row = running.row(conid)
    leg = {name: row[name] for name in ("conid", "symbol", "right", "strike", "expiry")}
    at_any_moment()
    asyncio.run(lake.registry.add_active(**leg, strategy_id="measured"))
    return running.until(lambda: running.row(conid)["source"] == "STREAM")


def _ticks(running: Running, state: str) -> list[Line]:
    """Time the sensors' ticks that found nothing to do, and what lies between any two."""
    lines = []
    for sensor in ("drain_queue", "supervise_stream"):
        running.until(lambda sensor=sensor: len(idle_ticks(running, sensor)) >= 12, every_s=5.0)
        took = idle_ticks(running, sensor)
        starts = [tick["timestamp"] for tick in _ticks_of(running, sensor)]
        lines.append(
            Line(
                what=f"tick of {sensor} p95",
                state=state,
                ours=statistics.quantiles(took, n=20)[-1],
                samples=len(took),
                target=Target(value=150.0),
            )
        )
        gaps = [later - one for one, later in pairwise(starts)]
        lines.append(_many(f"from tick to tick of {sensor}", gaps, 5.5))
    return lines


def idle_ticks(running: Asked, sensor: str) -> list[float]:
    """Give the milliseconds of the last ticks of a sensor that found nothing to do."""
    answer = _asked(running, sensor)
    reported_at = [
        float(event["timestamp"]) / 1e3
        for asset in answer["assetNodes"]
        for event in asset["assetMaterializations"]
    ]
    return [
        (tick["endTimestamp"] - tick["timestamp"]) * 1e3
        for tick in _ticks_in(answer)
        if is_idle(tick, reported_at)
    ]


def is_idle(tick: Mapping[str, Any], reported_at: Sequence[float]) -> bool:
    """Return whether nothing waited for a tick, and it reported no table at one of these moments.

    A table is reported where rows came, by the same tick or, if it takes longer to derive, by a
    later one. Such a tick counts as skipped for Dagster, too: it starts no run.
    """
    ended = tick["endTimestamp"]
    if tick["status"] != "SKIPPED" or not ended or WORKED.search(tick["skipReason"]):
        return False
    return not any(tick["timestamp"] <= at <= ended for at in reported_at)


def _ticks_of(running: Asked, sensor: str) -> list[dict[str, Any]]:
    return _ticks_in(_asked(running, sensor))


def _asked(running: Asked, sensor: str) -> dict[str, Any]:
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "position_sync_dagster",
        "sensorName": sensor,
    }
    answer: dict[str, Any] = running.ask(TICKS, sensor=selector)
    return answer


def _ticks_in(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    ticks = answer["sensorOrError"]["sensorState"]["ticks"]
    return sorted(ticks, key=lambda tick: tick["timestamp"])


def _kills(running: Running, rounds: int) -> list[float]:
    sessions = MoneyLake(running.home / "lake").sessions
    took = []
    for _ in range(rounds):
        running.until(lambda: sessions.history(1)[0].lines_in_use == running.lines())
        (before,) = sessions.history(1)

        def again(before: GatewaySession = before) -> bool:
            (now,) = sessions.history(1)
            if now.session_id == before.session_id or now.state is not SessionState.LIVE:
                return False
            return now.lines_in_use == before.lines_in_use

        os.kill(before.pid, signal.SIGKILL)
        took.append(running.until(again))
    return took


def _one(what: str, state: str, seconds: float, bound: float) -> Line:
    return Line(what=what, state=state, ours=seconds, unit="s", target=Target(value=bound))


def _many(what: str, seconds: Sequence[float], bound: float) -> Line:
    return Line(
        what=f"{what}, median",
        state=f"longest {max(seconds):.1f} s",
        ours=statistics.median(seconds),
        unit="s",
        samples=len(seconds),
        target=Target(value=bound),
    )
