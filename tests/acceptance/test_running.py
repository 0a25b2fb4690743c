"""One running demo: what it shows, and how it follows strategies and broker.

`test_screens.py` looks at the same demo in a browser, `test_starting_again.py` kills parts of it,
and `test_stopping.py` all of it.
"""

import json
import re
import shlex
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import polars as pl
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import looks
from position_sync_dagster.demo import RECORDED, SESSIONS
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.processes.supervisor import is_serving
from tests.acceptance.test_starting_again import stream_runs
from tests.support import demo_program
from tests.support.command_line import call, json_of
from tests.support.data_dictionary import SPECS
from tests.support.demo_program import ACCOUNT, LINES, STREAMED, Demo, command, wait_for
from tests.support.never_null import null_where_never
from tests.support.ports import NO_CERTIFICATES
from tests.unit.test_house import DOCUMENTS, FENCE, commands

STREAMED_CONID = 911000001
STREAMED_TO_CLOSE = 912000009
TO_FILL = 915000030
# A leg that no strategy of the demo holds.
TO_ACTIVATE = ("915000037", "NVDA", "C", "167.5", "20290119")

WATCHED = "a_stream_watches FAILED"
ENDED = {"SUCCESS", "CANCELED", "FAILURE"}


@pytest.fixture(scope="module")
def demo(chain_home) -> Demo:
    demo = chain_home.running()
    wait_for("the UI answers", lambda: is_serving(demo.ui_port))
    wait_for(
        f"{STREAMED} legs by STREAM and {demo_program.QUEUED} by QUEUE",
        lambda: (
            any((demo.lake / "position_updates" / "_delta_log").glob("*.json"))
            and by_source(demo) == {"STREAM": STREAMED, "QUEUE": demo_program.QUEUED}
        ),
        poll_s=0.5,
    )
    return demo


# The status of the backfill of `daily_positions`, the partitions that had no materialization before
# it, and the table's rows after it.
Backfill = tuple[str, int, pl.DataFrame]
# Where Dagster finds a sensor or a job.
PLACE = {
    "repositoryName": "__repository__", "repositoryLocationName": "position_sync_dagster",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def backfilled(demo) -> Iterator[Future[Backfill]]:
    """Backfill days beside the other tests.

    Dagster looks for backfills every 30 s, and again for their end. That the same backfill again
    changes nothing is shown in `tests/integration/defs/assets/test_daily_positions.py`.
    """
    ending = Event()
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(backfill, demo, ending)
        ending.set()


def backfill(demo: Demo, ending: Event) -> Backfill:
    """Backfill the five sessions that the demo leaves to a person.

    After its close the day of the demo is a partition too, the eleventh.
    """

    def wait(what: str, condition: Callable[[], Any]) -> Any:
        def look() -> Any:
            assert not ending.is_set(), "no test waits for this any more"
            return condition()

        # Each look is a query of the webserver, which takes from what it waits for.
        return wait_for(what, look, poll_s=5)

    wait("the newest five sessions are recorded", lambda: filled(demo) >= RECORDED)
    days = demo.partitions("daily_positions")[: SESSIONS - RECORDED]
    before = filled(demo)
    launched = launch_backfill(demo, days)
    wait("the backfill ends", lambda: backfill_status(demo, launched) != "REQUESTED")
    values = ["session_date", "account", "conid", "position", "market_value"]
    rows = demo.table("daily_positions").select(values)
    return backfill_status(demo, launched), filled(demo) - before, rows


def launch_backfill(demo: Demo, days: list[str]) -> str:
    """Launch a backfill of `daily_positions` and return its id."""
    answer = demo.graphql(
        """mutation($params: LaunchBackfillParams!) {
             launchPartitionBackfill(backfillParams: $params) {
               __typename ... on LaunchBackfillSuccess { backfillId }
               ... on PythonError { message } } }""",
        params={"assetSelection": [{"path": ["daily_positions"]}], "partitionNames": days},
    )["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    backfill_id: str = answer["backfillId"]
    return backfill_id


def backfill_status(demo: Demo, backfill_id: str) -> str:
    status: str = demo.graphql(
        """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
             ... on PartitionBackfill { status } } }""",
        id=backfill_id,
    )["partitionBackfillOrError"]["status"]
    return status


def filled(demo: Demo) -> int:
    """Count the partitions of `daily_positions` that have a materialization."""
    answer = demo.graphql(
        """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
             ... on AssetNode { partitionStats { numMaterialized } } } }""",
        key={"path": ["daily_positions"]},
    )
    count: int = answer["assetNodeOrError"]["partitionStats"]["numMaterialized"]
    return count


def newest(demo: Demo) -> pl.DataFrame:
    """Return the newest row of each holding written since the start."""
    rows = demo.updates().filter(pl.col("timestamp") >= demo.began)
    return rows.sort("timestamp").unique(["account", "conid"], keep="last")


def by_source(demo: Demo) -> dict[str, int]:
    return dict(newest(demo).group_by("source").len().iter_rows())


def test_each_leg_has_a_current_row_by_its_own_path(demo):
    rows = newest(demo)
    assert rows.height == demo_program.LEGS
    assert rows["trading_mode"].unique().to_list() == ["SIMULATED"]
    assert rows["market_value"].null_count() == 0
    assert set(rows.filter(source="STREAM")["value_source"]) == {"TICK"}
    queued = rows.filter(source="QUEUE")
    assert set(queued["value_source"]) <= {"PORTFOLIO", "PNL_SINGLE"}
    ratio = (
        pl.col("position") * pl.col("market_price") * pl.col("multiplier") / pl.col("market_value")
    )
    assert queued.select(ratio.is_between(0.999, 1.001).all()).item()


def test_the_broker_saw_one_connection_and_no_line_too_many(demo):
    wait_for("all lines are in use", lambda: demo.lines() == LINES)
    counts = demo.stats()
    assert counts["lines_in_use"] == LINES
    assert counts["peak_lines"] == LINES
    assert counts["connections"]["now"] == 1
    assert counts["connections"]["peak"] <= 2
    assert counts["orders_received"] == []
    assert counts["refused"] == {}
    assert counts["rate_violations"] == 0


def test_the_command_line_sees_the_same(demo):
    # The owner writes the number of its lines with each heartbeat.
    wait_for("all lines are in its status", lambda: status(demo)["lines_in_use"] == LINES, poll_s=1)
    done = command("status", "--json", "--home", str(demo.home), cwd=demo.home.parent)
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout)
    assert reply["legs_streamed"] == STREAMED
    assert reply["underlying_lines"] == LINES - STREAMED
    assert reply["session_state"] == "LIVE"
    assert len(json_of("positions", "--home", str(demo.home))) == demo_program.LEGS
    answer = json_of("positions", "--strategy", "spy-calendar", "--home", str(demo.home))
    assert [row["source"] for row in answer] == ["STREAM", "STREAM"]


def scraped(demo: Demo) -> dict[str, dict[str, float]]:
    """Scrape the webserver: each sample by its name, and by its labels without the gateway."""
    samples: dict[str, dict[str, float]] = defaultdict(dict)
    url = f"http://127.0.0.1:{demo.ui_port}/metrics"
    answer = httpx.get(url, trust_env=False, timeout=60, verify=NO_CERTIFICATES)
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            label = " ".join(text for key, text in sample.labels.items() if key != "gateway")
            samples[sample.name.removeprefix("position_sync_")][label] = sample.value
    return samples


def test_a_scrape_of_the_webserver_says_the_same(demo):
    ended = {"held": float(demo_program.LEGS), "current": float(demo_program.LEGS)}
    wait_for("all is current", lambda: ended.items() <= scraped(demo)["legs"].items(), poll_s=1)
    samples = scraped(demo)
    assert sum(samples["lines_in_use"].values()) == LINES
    assert samples["login_state"]["LIVE"] == 1.0
    assert samples["rows_written_total"].keys() == {"STREAM", "QUEUE"}
    assert samples["queue_requests"]["FAILED"] == 0.0
    assert 0.0 < samples["tick_duration_seconds"][""] < 60.0
    assert samples["oldest_value_age_seconds"][""] >= 0.0


# The commands of documents that read; those of a reader's own ids are his own.
READING = {
    "status", "exposure", "what-if", "expiry", "changes", "positions", "payoff", "why",
    "results", "figures", "breaks", "queue", "strategies", "reconcile",
}  # fmt: skip
CHANGING = {"accept", "reopen", "retry", "add", "remove", "--accept", "rolls"}
# A time of an example, before the demo.
MOMENT = re.compile(r"2026-03-09T[0-9:]+Z")


def documented() -> dict[str, str]:
    """Return each command that a document shows in a block, with the name of the document."""
    shown: dict[Any, Any] = {}
    for document in DOCUMENTS:
        for kind, body in FENCE.findall(document.read_text()):
            block = f"```{kind}\n{body}```"
            shown |= dict.fromkeys(commands(block) if kind == "sh" else (), document.name)

    reading = {line: words for line in shown if (words := line.split())[:1] and words[0] in READING}
    return {
        line.partition(" > ")[0]: shown[line]
        for line, words in reading.items()
        if not CHANGING & set(words)
    }


def test_each_command_that_a_document_shows_runs_in_the_home_of_the_demo(demo):
    now = datetime.now(UTC).isoformat()
    document_of: dict[tuple[str, ...], str] = {}
    for line, document in documented().items():
        # Without an id the newest attempts are listed.
        left_out = ("--home", ".demo", "REQUEST_ID")
        words = [word for word in shlex.split(line) if word not in left_out]
        words = [now if MOMENT.fullmatch(word) else word for word in words]
        document_of[*words] = document
    assert len(document_of) > 15

    for command_line, document in document_of.items():
        done = call(*command_line, "--home", str(demo.home))
        assert done.exit_code == 0, f"{document}: {shlex.join(command_line)}: {done.output}"


def seen(demo: Demo, conid: int, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until the newest row of a conid fulfils a condition, and return it."""

    def look() -> dict[str, Any] | None:
        row = demo.latest(conid)
        return row if row is not None and condition(row) else None

    found: dict[str, Any] = wait_for(f"a row of {conid}", look, poll_s=0.5)
    return found


def test_a_streamed_fill_is_seen_by_the_stream(demo):
    for _ in range(3):
        before = demo.latest(STREAMED_CONID)["position"]
        demo.post("fill", account=ACCOUNT, conid=STREAMED_CONID, quantity=2)
        row = seen(demo, STREAMED_CONID, lambda r, b=before: r["position"] == b + 2)
        assert row["source"] == "STREAM"


def test_a_streamed_close_is_an_explicit_zero_row_of_the_stream(demo):
    demo.post("close", account=ACCOUNT, conid=STREAMED_TO_CLOSE)
    row = seen(demo, STREAMED_TO_CLOSE, lambda r: r["position"] == 0.0)
    assert row["account"] == ACCOUNT
    assert row["source"] == "STREAM"
    wait_for("its line is free", lambda: demo.lines() == LINES - 1)


def monitored(demo: Demo, *, short: bool) -> int:
    """Return a leg of no strategy that the broker holds, long or short.

    No statement of the last days has a trade of it, which could be the cause of its close.
    """
    statements = "".join(file.read_text() for file in (demo.home / "flex").glob("*.xml"))
    traded = map(int, re.findall(r'<Trade [^>]*conid="(\d+)"', statements))
    others = {TO_FILL, int(TO_ACTIVATE[0]), *traded}
    queued = set(newest(demo).filter(source="QUEUE")["conid"]) - others
    held = {row["conid"]: row["quantity"] for row in demo.positions() if row["quantity"]}
    return max(c for c, quantity in held.items() if c in queued and (quantity < 0) is short)


def test_monitored_changes_are_seen_by_the_queue(demo):
    filled = TO_FILL
    closed = monitored(demo, short=False)
    assigned = monitored(demo, short=True)
    wanted = {filled: demo.latest(filled)["position"] + 3, closed: 0.0, assigned: 0.0}
    demo.post("fill", account=ACCOUNT, conid=filled, quantity=3)
    demo.post("close", account=ACCOUNT, conid=closed)
    demo.post("assign", account=ACCOUNT, conid=assigned)
    for conid, position in wanted.items():
        row = seen(demo, conid, lambda r, wanted=position: r["position"] == wanted)
        assert row["source"] == "QUEUE"


def test_a_leg_made_active_is_streamed_and_removed_goes_back(demo):
    conid, symbol, right, strike, expiry = TO_ACTIVATE
    lines = LINES - 1  # one streamed leg is closed
    wait_for("all lines are in use", lambda: demo.lines() == lines)
    arguments = ["--strategy", "tried-out", "--symbol", symbol, "--right", right]
    arguments += ["--strike", strike, "--expiry", expiry, "--home", str(demo.home)]
    added = command("strategies", "add", conid, *arguments, cwd=demo.home.parent)
    assert added.returncode == 0, added.stderr
    row = seen(demo, int(conid), lambda r: r["source"] == "STREAM")
    assert row["position"] != 0
    wait_for("its line", lambda: demo.lines() == lines + 1)

    # As a program, as a person does: what it writes is for the owner alone.
    removed = command("strategies", "remove", conid, "--home", str(demo.home), cwd=demo.home.parent)
    assert removed.returncode == 0, removed.stderr
    wait_for("the line is free again", lambda: demo.lines() == lines)
    # A fill makes the account feed send its value, which would otherwise come within minutes.
    demo.post("fill", account=ACCOUNT, conid=int(conid), quantity=1)
    seen(demo, int(conid), lambda r, b=row["position"]: r["position"] == b + 1)
    assert demo.latest(int(conid))["source"] == "QUEUE"


def ticks(demo: Demo, sensor: str, *, since: datetime) -> list[str]:
    """Return the statuses of a sensor's ticks that began since a moment."""
    answer = demo.graphql(
        """query($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) {
             ... on Sensor { sensorState { ticks(limit: 200) { timestamp status } } } } }""",
        sensor=PLACE | {"sensorName": sensor},
    )
    listed = answer["sensorOrError"]["sensorState"]["ticks"]
    return [tick["status"] for tick in listed if tick["timestamp"] >= since.timestamp()]


@pytest.mark.parametrize("sensor", ["drain_queue", "supervise_stream"])
def test_the_sensors_tick_without_an_error(demo, sensor):
    def at_least_five() -> list[str]:
        tick_list = ticks(demo, sensor, since=demo.began)
        return tick_list if len(tick_list) >= 5 else []

    statuses = wait_for("five ticks", at_least_five, poll_s=2)
    assert set(statuses) <= {"SUCCESS", "SKIPPED", "STARTED"}


def test_no_run_fails(demo):
    def are_recorded() -> bool:
        answer = demo.graphql(
            "{ runsOrError(limit: 100) { ... on Runs { results { jobName status } } } }"
        )
        runs = {(run["jobName"], run["status"]) for run in answer["runsOrError"]["results"]}
        assert not [job for job, status in runs if status == "FAILURE"]
        return ("close_day", "SUCCESS") in runs

    wait_for("the days before the start are recorded", are_recorded, poll_s=2)


def status(demo: Demo) -> dict[str, Any]:
    answer: dict[str, Any] = json_of("status", "--home", str(demo.home))
    return answer


def test_a_stream_terminated_in_the_ui_is_paused_until_a_person_resumes_it(demo):
    lake = MoneyLake(str(demo.lake))
    (before,) = lake.sessions.history(1)
    answer = demo.graphql(
        "mutation($id: String!) { terminateRun(runId: $id) { __typename } }", id=before.run_id
    )
    assert answer["terminateRun"]["__typename"] == "TerminateRunSuccess", answer
    wait_for("the lines are free", lambda: demo.lines() == 0)
    wait_for("status says so", lambda: "paused by a person" in str(status(demo)))
    since = datetime.now(UTC)
    for sensor in ("supervise_stream", "drain_queue"):  # which would start what must not start
        wait_for(
            f"two ticks of {sensor}",
            lambda s=sensor: len([t for t in ticks(demo, s, since=since) if t != "STARTED"]) >= 2,
            poll_s=2,
        )
    assert demo.lines() == 0
    newest_stream = next(s for s in lake.sessions.history(5) if s.owner == "STREAM")
    assert newest_stream.session_id == before.session_id

    demo.graphql(
        """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
             __typename } }""",
        params={"selector": PLACE | {"jobName": "stream_positions"}, "runConfigData": {}},
    )
    wait_for("it streams again", lambda: demo.lines() >= LINES - 2)


def test_a_backfill_of_five_days_fills_five_partitions(backfilled):
    status, new, rows = backfilled.result(demo_program.LIMIT_S)
    assert status == "COMPLETED_SUCCESS"
    assert new == 5
    assert rows.height >= SESSIONS * 190
    assert rows.is_unique().all()


def test_nothing_was_ordered_and_no_request_is_stuck(demo):
    assert demo.stats()["orders_received"] == []
    assert demo.stats()["connections"]["now"] == 1
    stuck = demo.table("position_queue").filter(pl.col("status") == "FAILED")
    assert stuck.height == 0, stuck["error_message"].unique().to_list()


def test_no_column_is_null_of_which_the_dictionary_says_never(demo):
    for name in ("risk_scenarios", "strategy_exposure"):
        assert demo.table(name).height, name
    assert null_where_never(demo.lake, SPECS) == {}


def test_tables_and_state_are_for_the_owner_alone_under_any_umask(demo):
    mode_of: dict[Path, int] = {}
    for folder in (demo.lake, demo.home / "dagster_home"):
        for path in (folder, *folder.rglob("*")):
            with suppress(FileNotFoundError):  # what runs removes files meanwhile
                mode_of[path] = stat.S_IMODE(path.lstat().st_mode)
    assert {path for path, mode in mode_of.items() if mode & 0o077} == set()


def look(demo: Demo) -> list[str]:
    """Return what is not green, as the lineage page computes it."""
    try:
        nodes = demo.graphql(looks.QUERY)["assetNodes"]
    except httpx.TransportError:
        return ["the server of the UI does not answer yet"]
    return looks.Looks().add(nodes) if nodes else ["no definitions are loaded yet"]


def the_one_stream(demo: Demo) -> dict[str, str] | None:
    """Return all runs of the stream if exactly one of them is going on, and nothing is queued."""
    runs = stream_runs(demo)
    going_on = [status for status in runs.values() if status not in ENDED]
    return runs if going_on == ["STARTED"] else None


def test_the_colours_follow_the_gateway_as_it_goes_and_comes(demo):
    wait_for("everything is green", lambda: look(demo) == [], poll_s=5, told=lambda: look(demo))
    before = wait_for("one stream runs", lambda: the_one_stream(demo))
    demo.post("restart", down_s=3600)
    wait_for("the check turns yellow", lambda: WATCHED in look(demo), poll_s=3)
    demo.post("restart", down_s=0)
    green = "everything is green again"
    wait_for(green, lambda: look(demo) == [], poll_s=5, told=lambda: look(demo))
    assert stream_runs(demo) == before
