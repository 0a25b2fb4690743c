"""What a stream tells Dagster waits while the storage is away, and keeps its order."""

import logging
import threading
from collections.abc import Iterator

import dagster as dg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from position_sync_dagster.defs import stream
from position_sync_dagster.defs.stream import PACKAGE, PatientLog


class Storage:
    """Stores events, or fails as a database does that is away."""

    def __init__(self) -> None:
        self.away = False
        self.stored: list[str] = []

    def store(self, event: stream.Event) -> None:
        if self.away:
            with create_engine("sqlite:////nowhere/at/all.db").connect() as connection:
                connection.execute(text("SELECT 1"))
        self.stored.append(event.description or "")


class Events:
    """Makes two events of a report, and counts the evaluations of the checks."""

    def __init__(self) -> None:
        self.evaluations = 0
        self.others_may_follow = False

    def of(self, report: str) -> Iterator[stream.Event]:
        yield dg.AssetObservation("a", description=f"{report} 1")
        yield dg.AssetMaterialization("a", description=f"{report} 2")

    def may_evaluate(self) -> bool:
        return not self.others_may_follow

    def evaluate(self, *, at_end: bool) -> None:
        self.evaluations += 1

    def evaluate_again(self) -> None: ...


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def log(storage: Storage, events: Events, monkeypatch: pytest.MonkeyPatch) -> PatientLog:
    monkeypatch.setattr(stream, "RETRY_S", 0.0)
    return PatientLog(events, storage.store)  # type: ignore[arg-type]


def test_events_of_an_outage_follow_in_their_order_each_once(log, storage, events):
    log.add("a")
    storage.away = True
    log.add("b")
    log.add("c")
    assert storage.stored == ["a 1", "a 2"]
    storage.away = False
    log.deliver()
    assert storage.stored == ["a 1", "a 2", "b 1", "b 2", "c 1", "c 2"]
    assert events.evaluations == 2, "once when all was told, not once a report"


def test_while_it_is_away_it_is_not_tried_at_each_turn(log, storage, monkeypatch):
    monkeypatch.setattr(stream, "RETRY_S", 3600.0)
    storage.away = True
    log.add("a")
    storage.away = False
    log.add("b")
    assert storage.stored == []
    log.deliver(now=True)
    assert storage.stored == ["a 1", "a 2", "b 1", "b 2"]


def test_at_its_end_a_stream_leaves_no_evaluation_to_others(log, events):
    events.others_may_follow = True
    with log.keeping_lines():
        log.add("a")
        assert events.evaluations == 0
    assert events.evaluations == 1


def test_an_error_of_another_kind_is_raised(events):
    def wrong(event: stream.Event) -> None:
        raise ValueError("a mistake of ours")

    with pytest.raises(ValueError, match="a mistake of ours"):
        PatientLog(events, wrong).add("a")


def test_lines_of_other_threads_are_handled_by_the_thread_that_delivers(log):
    handled: list[tuple[str, int]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            handled.append((record.getMessage(), threading.get_ident()))

    package, handler = logging.getLogger(PACKAGE), Handler()
    before = list(package.handlers)
    package.addHandler(handler)
    try:
        with log.keeping_lines():
            other = logging.getLogger(f"{PACKAGE}.sync")
            thread = threading.Thread(target=other.warning, args=("line %d of %s", 1, "it"))
            thread.start()
            thread.join()
            assert handled == []
            log.deliver()
            assert handled == [("line 1 of it", threading.get_ident())]
            other.warning("the last")
        assert [line for line, _ in handled] == ["line 1 of it", "the last"]
        assert package.handlers == [*before, handler]
    finally:
        package.removeHandler(handler)


def test_a_failed_database_is_known_also_behind_an_error_of_dagster():
    cause = OperationalError("SELECT", None, Exception("refused"))
    wrapped = RuntimeError("too many retries")
    wrapped.__cause__ = cause
    assert stream.is_storage_error(cause)
    assert stream.is_storage_error(wrapped)
    assert not stream.is_storage_error(RuntimeError("something else"))
