"""The stream's op: its thread, its log, its clean end."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError

from position_sync_dagster.defs import stream as stream_job_module
from position_sync_dagster.defs.stream import StreamThread, status_of, stream_job
from position_sync_dagster.errors import LeaseLostError, LoginOwnedError
from position_sync_dagster.sync.stream import streamer as stream_module
from position_sync_dagster.sync.stream.ownership import StreamCounts

Stream = Callable[..., Any]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stream], None]:
    """Replace the real stream by another function."""
    return lambda stream: monkeypatch.setattr(stream_module, "stream", stream)


@pytest.fixture
def run(composition, instance: dg.DagsterInstance) -> Callable[[], Any]:
    resources = {"position_sync": composition.resource()}
    return lambda: stream_job(composition.extension).execute_in_process(
        instance=instance, resources=resources, raise_on_error=False
    )


def given_up(instance: dg.DagsterInstance, run_id: str) -> None:
    """Report a run as failed, as the supervisor does if a clock was set during its start."""
    instance.report_run_failed(instance.get_run_by_id(run_id))


@pytest.fixture
def asked_to_end(play, run, instance, monkeypatch) -> Callable[..., list[str]]:
    """Let something happen to the run of a stream; return the runs that were asked to end then."""
    monkeypatch.setattr(stream_job_module, "LOOK_S", 0.05)
    ended = []

    def happens(change: Callable[[dg.DagsterInstance, str], object]) -> list[str]:
        async def stream(lake, settings, *, run_id, stop, **_parts):
            change(instance, run_id)
            await asyncio.wait_for(stop.wait(), 60)
            ended.append(run_id)
            return StreamCounts()

        play(stream)
        run()
        return ended

    return happens


@pytest.mark.parametrize("end", [dg.DagsterInstance.delete_run, given_up])
def test_a_stream_whose_run_was_deleted_or_ended_ends_as_if_asked(asked_to_end, end):
    """Nobody could terminate it, Dagster would show no stream, and its successors would wait."""
    assert len(asked_to_end(end)) == 1


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("select", {}, OSError("no database")),
        Exception("too many retries for DB connection"),  # as dagster-postgres raises it
    ],
)
def test_a_storage_that_is_away_ends_no_stream(composition, instance, monkeypatch, error):
    run = instance.create_run_for_job(stream_job(composition.extension))
    assert status_of(instance, run.run_id) is run.status

    def away(*_: object) -> None:
        raise error

    monkeypatch.setattr(dg.DagsterInstance, "get_run_by_id", away)
    assert status_of(instance, run.run_id) is None


def interrupted(instance: dg.DagsterInstance, ended: list[bool], *, by_a_person: bool) -> Stream:
    async def stream(lake, settings, *, run_id, stop, **_parts):
        if by_a_person:
            instance.report_run_canceling(instance.get_run_by_id(run_id))
        signal.raise_signal(signal.SIGINT)
        await stop.wait()
        signal.raise_signal(signal.SIGINT)  # Dagster's launcher interrupts again while it waits
        await asyncio.sleep(0.5)
        ended.append(threading.current_thread() is not threading.main_thread())
        return StreamCounts()

    return stream


@pytest.mark.parametrize(("by_a_person", "status"), [(True, "CANCELED"), (False, "SUCCESS")])
def test_an_interrupt_ends_the_stream_cleanly_and_only_a_person_pauses_it(
    play, run, instance, by_a_person, status
):
    """The supervisor takes a canceled run for a pause."""
    ended: list[bool] = []
    play(interrupted(instance, ended, by_a_person=by_a_person))
    run()
    (record,) = instance.get_run_records()
    assert record.dagster_run.status.value == status
    assert ended == [True]


def asked_for(instance: dg.DagsterInstance, run_id: str) -> None:
    """Terminate a run whose process a restarted code server does not know."""
    instance.report_run_canceling(instance.get_run_by_id(run_id))


def forced(instance: dg.DagsterInstance, run_id: str) -> None:
    """Force the termination of a run: Dagster calls it over, and asks no process."""
    instance.report_run_canceled(instance.get_run_by_id(run_id))


@pytest.mark.parametrize("terminate", [asked_for, forced])
def test_a_termination_that_does_not_reach_the_process_ends_the_stream_as_canceled(
    asked_to_end, instance, terminate
):
    ended = asked_to_end(terminate)
    (record,) = instance.get_run_records()
    assert record.dagster_run.status.value == "CANCELED"
    assert ended == [record.dagster_run.run_id]


@pytest.mark.parametrize("kind", [LoginOwnedError, LeaseLostError])
def test_an_error_of_the_stream_fails_the_run_with_what_and_remedy(play, run, kind):
    async def stream(lake, settings, *, run_id, stop, **_parts):
        raise kind("The login is taken.", remedy="Wait for it.")

    play(stream)
    result = run()
    assert not result.success
    message = result.failure_data_for_node("stream_legs").error.message
    assert "The login is taken. Wait for it." in message


def test_the_stream_gets_the_id_of_its_run_and_its_log_is_the_output_of_its_process(
    play, run, capsys
):
    run_ids = []

    async def stream(lake, settings, *, run_id, stop, **_parts):
        logging.getLogger("position_sync_dagster.x").info("a leg gained a line")
        run_ids.append(run_id)
        return StreamCounts()

    play(stream)
    assert run().run_id == run_ids[0]
    assert "INFO position_sync_dagster.x: a leg gained a line" in capsys.readouterr().err


def test_a_stream_that_does_not_end_in_time_is_an_error(play, lake, settings):
    release = threading.Event()

    async def stream(lake, settings, *, run_id, stop, **_parts):
        await asyncio.to_thread(release.wait)
        return StreamCounts()

    play(stream)
    thread = StreamThread(partial(stream, lake, settings, run_id="r"), clean_end_s=0.01)
    with thread.running():
        pass
    with pytest.raises(TimeoutError, match="did not end in time"):
        thread.result()
    release.set()
    thread.wait(until=lambda: False)


def test_a_storage_that_does_not_answer_holds_up_no_line_of_the_stream(play, run, capsys):
    """Else the thread that values the ticks would wait, or end with an error of the storage."""
    package = logging.getLogger("position_sync_dagster")
    waiting = threading.Event()

    class Away(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waiting.wait(60)
            raise OperationalError("insert", {}, OSError("no database"))

    async def stream(lake, settings, *, run_id, stop, **_parts):
        logging.getLogger("position_sync_dagster.x").info("first")
        logging.getLogger("position_sync_dagster.x").info("second")
        waiting.set()
        return StreamCounts()

    play(stream)
    handler = Away()
    package.addHandler(handler)
    try:
        assert run().success
    finally:
        package.removeHandler(handler)
    assert waiting.is_set()
