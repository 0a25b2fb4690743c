"""An hour beside TWS: what is planted as new is named, nothing else is, and no secret is told."""

import asyncio
import json
import os
import re
import signal
import sys
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from ib_gateway_simulator import heard as reported
from ib_gateway_simulator import load_book
from ib_gateway_simulator.options import Options
from ib_gateway_simulator.recordings.recording import load_recording
from ib_gateway_simulator.replay.server import Replay
from position_sync_dagster.errors import LoginOwnedError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.processes.rehearsal import run
from position_sync_dagster.processes.rehearsal.values import _hangs_on
from tests.support.empty_lakes import put_tables
from tests.support.recorded_session import SMALL
from tests.support.sessions import own
from tests.support.settings import make_settings
from tests.support.streams import simulate
from tests.support.waiting import eventually

A = "DUSIM0001"
COMMAND = Path(sys.executable).with_name("position-sync")


async def rehearsed(port, condition, *, lines=10, **settings):
    """Rehearse in this event loop until a condition holds, and return the file."""
    made = make_settings(
        gateway_port=port, flush_interval_s=0.1, min_hold_s=0.1, answer_s=0.5, **settings
    )
    stop = asyncio.Event()
    task = asyncio.create_task(run.listen(made, lines=lines, lake=None, stop=stop))
    await eventually(lambda: task.done() or condition())
    stop.set()
    report = await task
    return json.loads(report.as_json()), report.page()


def named(report):
    """Return what is new or different, without what is compared with the broker's values."""
    lines = (*report["said"], *report["assumed"])
    odd = [line for line in lines if line["verdict"] in ("new", "different")]
    return {line["text"] if line in report["said"] else line["about"] for line in odd}


def ticks(sim, times):
    """Return a condition: the stream has its lines, and the market has moved since."""
    begun = []

    def done():
        if sim.stats()["lines_in_use"]:
            begun.append(sim.stats()["steps"])
        return begun and sim.stats()["steps"] >= begun[0] + times

    return done


async def test_nothing_of_the_simulator_is_new_and_lines_stay_within_their_number():
    async with simulate("small", pnl_interval_s=1.0) as sim:
        report, page = await rehearsed(sim.port, ticks(sim, 40), lines=3)
        assert sim.stats()["peak_lines"] <= 3
        assert sim.orders_received == []
    assert named(report) == set()
    assert "## What it said\n\n- good:" in page
    assert report["server_version"] == 178
    about = {line["about"] for line in report["values"]}
    assert {"multiplier", "average cost", "delta to model ticks", "value to PnLSingle"} <= about


async def test_nothing_of_a_recording_is_new():
    async with Replay(load_recording(SMALL), speed=8.0) as replay:
        report, _page = await rehearsed(replay.port, lambda: replay.is_over)
    assert [line["text"] for line in report["said"] if line["verdict"] == "new"] == []
    assert sum(line["count"] for line in report["said"] if line["about"] == "message") > 100


# What an unkind gateway does: an action of the simulator, with its arguments.
UNKIND = {
    "a slow PnLSingle": None,
    "a new type of tick": ("tick_lines", {"message": ["46", "6", "line", "105", "7"]}),
    "a missing end": ("download_end", {"account": A, "delay_s": None}),
    "a new code": ("send_error", {"code": 10999, "text": "Simulated error 10999"}),
    "a new message": ("say", {"messages": [["250", "1", "X"]]}),
    "another account time": ("say", {"messages": [["8", "1", "12:00:00 CET"]]}),
    "a line that ticks on": ("tick_lines", {"message": ["4", "2", "line", "10182", "cut", ""]}),
}

# How that is named.
NAMED_LINES = """
    a slow PnLSingle     | pnlSingle, then pnlSingle
    a new type of tick   | 105 (tickString)
    a missing end        | reqAccountUpdates
    a new code           | 10999 (error)
    a new code           | 10999: … error …
    a new message        | message 250
    a new message        | message 250 has 3 fields
    a new message        | message 250: field 1 is number
    a new message        | message 250: field 2 is text
    another account time | updateAccountTime: field 2 is text
    a line that ticks on | 10182 (error)
    a line that ticks on | 10182: …
    a line that ticks on | 10182, then ticks
"""
NAMES_OF = defaultdict(set)
for line in NAMED_LINES.strip().splitlines():
    deed, name = line.split(" | ")
    NAMES_OF[deed.strip()].add(name)


async def unkind(names):
    """Rehearse at a gateway that does some of it; return what was named, and the file."""
    interval_s = 2.2 if "a slow PnLSingle" in names else 1.0
    async with simulate("small", pnl_interval_s=interval_s) as sim:
        acts = [UNKIND[name] for name in names if UNKIND[name] is not None]
        for name, arguments in acts:
            if name == "download_end":
                sim.download_end(**arguments)

        # At 20 steps a second: three messages of a slow profit, or time for an end.
        steps = 140 if {"a slow PnLSingle", "a missing end"} & {*names} else 20
        has_moved = ticks(sim, steps)

        heard: list[Any] = []

        def done():
            if has_moved() and not heard:
                heard.append(sim.stats()["steps"] + 20)
                for name, arguments in acts:
                    getattr(sim, name)(**arguments)
            return heard and sim.stats()["steps"] > heard[0]

        report, _page = await rehearsed(sim.port, done, gateway_timeout_s=1.0)
    return named(report), report


async def test_what_is_planted_is_named_and_its_report_becomes_a_fault(tmp_path):
    names = ("a slow PnLSingle", "a new type of tick", "a missing end", "a new message")
    planted = set().union(*(NAMES_OF[name] for name in names))
    told, report = await unkind(names)
    assert told == planted

    file = tmp_path / "rehearsal.json"
    file.write_text(json.dumps(report))
    options = Options(tick_interval_s=0.05, control_port=None)
    async with reported.played(reported.load_report(file), options) as sim:
        again, _page = await rehearsed(sim.port, ticks(sim, 160), gateway_timeout_s=1.0)
    assert named(again) == planted


@pytest.mark.parametrize("name", UNKIND)
async def test_one_planted_thing_is_named_alone(name):
    told, _report = await unkind([name])
    assert told == NAMES_OF[name]


HEARD = Path(__file__).parents[2] / "heard"
REPORTS = sorted(HEARD.glob("*.json"))


@pytest.mark.parametrize("file", REPORTS, ids=lambda file: file.stem)
async def test_what_was_reported_is_played_and_named_again(file):
    report = reported.load_report(file)
    options = Options(tick_interval_s=0.05, control_port=None)
    async with reported.played(report, options) as sim:
        again, _page = await rehearsed(sim.port, ticks(sim, 160), gateway_timeout_s=1.0)
    orders = {line["text"] for line in report["said"] if line["about"] == "order"}
    assert named(report) - orders <= named(again)


def test_the_gallery_lists_each_gateway_that_was_heard():
    page = (HEARD.parents[1] / "docs/gallery.md").read_text()
    for file in REPORTS:
        report = reported.load_report(file)
        odd = len(named(report))
        columns = [report[name] for name in ("server_version", "day", "minutes")]
        row = f"| {' | '.join(map(str, [*columns, odd]))} |"
        assert f"[{file.stem}]" in page
        assert row in page


NAMES = [f"Marion{letter}{letter.lower()}lder" for letter in "ABCDEFGHIJKLMNOPQRST"]
ACCOUNTS = [f"U{7_654_320 + number}" for number in range(15)]
AMOUNTS = [f"{98_765.43 + 17 * number:.2f}" for number in range(15)]


def planted_messages():
    """Yield messages that have a name, an account and an amount in every place that may be read."""
    for place in range(20):
        name, account, amount = (each[place % len(each)] for each in (NAMES, ACCOUNTS, AMOUNTS))
        yield ["4", "2", "-1", "2101", f"{name} of {account} needs {amount} USD", account]
        yield ["4", "2", "-1", account, name, amount]
        yield ["6", "2", name + "!", amount, account, account]
        yield ["6", "2", account, amount, "USD", account]
        yield ["250", name, account, amount]
        yield [name, account, amount]
        yield [account, amount]
        yield ["46", "6", "9", name, amount]
        yield ["8", "1", name]
        yield ["54", "1", name]
        yield ["4", "2", name, "2104", f"Market data farm connection is OK:{name}", ""]
        yield ["7", "8", account, name, name, amount, amount, name, amount, *[name] * 6, amount]
        yield ["61", "3", account, "12", name, "OPT", amount, name, *[amount] * 8]


async def test_no_planted_secret_is_in_the_file_or_on_the_page():
    secrets = [*NAMES, *ACCOUNTS, *AMOUNTS]
    assert len({*secrets}) == 50
    book = load_book("small")
    names = {account.name: new for account, new in zip(book.accounts, ACCOUNTS, strict=False)}
    accounts = tuple(replace(account, name=names[account.name]) for account in book.accounts)
    openings = tuple(replace(row, account=names[row.account]) for row in book.openings)
    book = replace(book, accounts=accounts, openings=openings)
    async with simulate(book) as sim:
        has_moved = ticks(sim, 20)
        said: list[Any] = []

        def done():
            if has_moved() and not said:
                said.append(sim.stats()["steps"] + 10)
                sim.say(list(planted_messages()))
            return said and sim.stats()["steps"] > said[0]

        report, page = await rehearsed(sim.port, done)
    assert "message 250" in named(report)
    text = json.dumps(report) + page
    assert [secret for secret in secrets if secret in text] == []
    assert "Marion" not in text
    # Not among the decimals of a time either, which may have the same digits by chance.
    numbers = set(re.findall(r"(?<![\d.])\d+", text))
    assert not [amount for amount in AMOUNTS if amount.split(".")[0] in numbers]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_hour_gives_the_page_of_what_was_heard(tmp_path, number):
    out = tmp_path / "hour.json"
    async with simulate("small") as sim:
        words = ("rehearse", "--minutes", "60", "--lines", "4", "--out", str(out))
        named = {"POSITION_SYNC_GATEWAY_PORT": str(sim.port), "TMPDIR": str(tmp_path)}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            COMMAND, *words, env=os.environ | named, cwd=tmp_path, stdout=pipe, stderr=pipe
        )

        has_moved = ticks(sim, 20)
        await eventually(has_moved)
        assert sim.stats()["peak_lines"] <= 4
        process.send_signal(number)
        page, told = await process.communicate()
        assert process.returncode == 0, told.decode()
        assert sim.orders_received == []

    assert page.decode().strip() == out.with_suffix(".md").read_text().strip()
    assert "server version 178, on at most 4 lines" in page.decode()
    assert {path.name for path in tmp_path.iterdir()} == {"hour.json", "hour.md"}
    assert out.stat().st_mode & 0o077 == 0
    assert reported.load_report(out)["lines"] == 4


async def test_a_login_that_is_streamed_is_left_alone(tmp_path):
    put_tables(tmp_path / "lake")
    lake = MoneyLake(tmp_path / "lake")
    settings = make_settings(lake=lake.path)
    own(lake, settings.gateway_id)
    with pytest.raises(LoginOwnedError):
        await run.listen(settings, lines=3, lake=None, stop=asyncio.Event())


def test_the_days_to_an_expiry_are_those_of_new_york():
    evening_of_the_ninth = datetime(2026, 3, 10, 1, tzinfo=UTC)
    row = {"strike": 100.0, "underlying_price": 100.0, "timestamp": evening_of_the_ninth}
    assert _hangs_on(row | {"expiry": date(2026, 3, 17)}) == "at the money, up to 45 days"
    assert _hangs_on(row | {"expiry": date(2026, 3, 16)}) == "at the money, up to a week"
