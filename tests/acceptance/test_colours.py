"""The colours of the UI, as its lineage page computes them, while the gateway goes and comes."""

import signal

import httpx

from benchmarks import looks
from tests.support.demo_program import LIMIT_S, Demo, wait_for

WATCHED = "a_stream_watches FAILED"
ENDED = {"SUCCESS", "CANCELED", "FAILURE"}


def look(demo: Demo) -> list[str]:
    """Return what is not green."""
    try:
        nodes = demo.graphql(looks.QUERY)["assetNodes"]
    except httpx.TransportError:
        return ["the server of the UI does not answer yet"]
    return looks.Looks().add(nodes) if nodes else ["no definitions are loaded yet"]


def stream_runs(demo: Demo) -> list[dict[str, str]]:
    found = demo.graphql(
        """{ runsOrError(filter: {pipelineName: "stream_positions"}) {
             ... on Runs { results { id status } } } }"""
    )
    runs: list[dict[str, str]] = found["runsOrError"]["results"]
    return runs


def the_one_stream(demo: Demo) -> list[dict[str, str]] | None:
    """Return all runs of the stream if exactly one of them is going on, and nothing is queued."""
    runs = stream_runs(demo)
    going_on = [run["status"] for run in runs if run["status"] not in ENDED]
    return runs if going_on == ["STARTED"] else None


def test_the_colours_follow_the_gateway_and_the_events_name_every_row(home) -> None:
    """Whatever happened in the home before, as in the browser's tests."""
    demo: Demo = home.running()
    wait_for("everything is green", lambda: look(demo) == [], poll_s=1)
    before = wait_for("one stream runs", lambda: the_one_stream(demo))
    demo.post("restart", down_s=20)
    wait_for("the check turns yellow", lambda: WATCHED in look(demo), poll_s=0.5)
    wait_for("everything is green again", lambda: look(demo) == [], poll_s=1)
    assert stream_runs(demo) == before
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(LIMIT_S) == 0, demo.outcome()
    demo.ended_without_a_trace()
    assert looks.count(demo.home) == 0
    newest, *older = looks.ended_runs(demo.home, "stream_positions")
    assert newest == "SUCCESS"
    assert set(older) <= {"CANCELED"}, "a person ended them"
