"""A replay: what was said so far, which recorded request is meant, and the times in messages."""

import asyncio

import pytest

from ib_gateway_simulator.protocol import requests
from ib_gateway_simulator.recordings.entry import Closed, Message, Opened
from ib_gateway_simulator.recordings.recording import load_recording
from ib_gateway_simulator.replay.clock_fields import shifted
from ib_gateway_simulator.replay.known import Known
from ib_gateway_simulator.replay.player import Player
from ib_gateway_simulator.replay.timeline import Asked, Ended, Told, connections_of
from tests.support.recorded_session import SMALL
from tests.support.waiting import eventually

A = "DUSIM0001"
HELD = ("61", "3", A, "77", *["x"] * 12)
ROW = ("7", "8", "77", *["x"] * 16, A)
VALUE = ("6", "2", "Cash", "5.00", "USD", A)


@pytest.fixture
def known():
    return Known()


def ask(*fields):
    return requests.decode([str(field) for field in fields])


POSITIONS = (61, 1)
UPDATES = (6, 2, 1, A)


def test_positions_are_known_only_after_the_end_of_their_list(known):
    known.note(HELD, None)
    assert known.answer(ask(*POSITIONS), 0.0) is None
    known.note(("62", "1"), None)
    assert known.answer(ask(*POSITIONS), 0.0) == [HELD, ("62", "1")]


def test_a_download_is_known_only_after_its_end(known):
    known.note(VALUE, None)
    known.note(ROW, None)
    assert known.answer(ask(*UPDATES), 0.0) is None
    known.note(("54", "1", A), None)
    answer = known.answer(ask(*UPDATES), 0.0)
    assert answer[:2] == [VALUE, ROW]
    assert answer[-1][0] == "54"


def test_an_end_without_a_name_belongs_to_the_account_that_was_asked_for(known):
    known.note(("54", "1", ""), ask(*UPDATES))
    assert known.answer(ask(*UPDATES), 0.0) is not None
    assert known.answer(ask(6, 2, 1, "DUSIM0002"), 0.0) is None


def test_the_newest_row_of_a_holding_counts(known):
    newer = (*HELD[:14], "9", "1.5")
    for fields in (HELD, newer, ("62", "1")):
        known.note(fields, None)
    assert known.answer(ask(*POSITIONS), 0.0)[:-1] == [newer]


def test_the_time_is_that_of_the_replay(known):
    assert known.answer(ask(49, 1), 1234.9) == [("49", "1", "1234")]


def test_nothing_is_invented_for_what_was_not_recorded(known):
    assert known.answer(ask(8, 1, ""), 0.0) is None
    assert known.log_in() == []


RECORDED_TIME = ("49", "1", "1000")


class Client:
    """Keeps what it is sent."""

    def __init__(self):
        self.sent = []

    def send(self, fields):
        self.sent.append(fields)

    def flush(self):
        pass

    def close(self):
        self.sent.append("closed")


def entries(*rows):
    return [
        Message(at_s=at_s, connection=1, sender=sender, name=name, fields=fields)
        for at_s, sender, name, fields in (
            (0.0, "gateway", "serverVersion", ("178", "20260102 00:00:00")),
            (0.0, "client", "startApi", ("71", "2", "4", "")),
            *rows,
        )
    ]


@pytest.fixture
async def play():
    tasks = []

    def run(*rows, speed=1e6, now=5000.0):
        [recorded] = connections_of(entries(*rows))
        client = Client()
        player = Player(
            client, recorded, Known(), speed=speed, now=lambda: now, shift_s=0.0, patience_s=1e9
        )
        tasks.append(asyncio.create_task(player.run()))
        return client, player

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


TIME = (
    (20.0, "client", "reqCurrentTime", ("49", "1")),
    (20.1, "gateway", "currentTime", RECORDED_TIME),
)


async def test_a_request_long_after_the_last_message_is_the_recorded_one(play):
    client, player = play(*TIME)
    await eventually(lambda: player._reached_s() == 20.0)  # it stands still there
    player.handle(ask(49, 1))
    await eventually(lambda: client.sent == [RECORDED_TIME])


async def test_a_request_long_before_the_recorded_one_is_answered_from_what_is_known(play):
    client, player = play(*TIME, speed=1e-6)
    await asyncio.sleep(0)
    player.handle(ask(49, 1))
    assert client.sent == [("49", "1", "5000")]


async def test_an_early_cancel_is_the_recorded_one(play):
    line = requests_of_a_line()
    client, player = play(
        (1.0, "client", "reqMktData", line),
        (1e6, "client", "cancelMktData", ("2", "2", "11")),
        (2e6, "gateway", "managedAccounts", ("15", "1", "DUSIM0001")),
    )
    await eventually(lambda: player._reached_s() == 1.0)
    player.handle(requests.decode(list(line)))
    player.handle(ask(2, 2, 11))
    await eventually(lambda: client.sent == [("15", "1", "DUSIM0001")])


def requests_of_a_line():
    line = next(e for e in load_recording(SMALL).entries if getattr(e, "name", "") == "reqMktData")
    return (*line.fields[:2], "11", *line.fields[3:])


def message(at_s, connection, sender, name, *fields):
    return Message(at_s=at_s, connection=connection, sender=sender, name=name, fields=fields)


def messages(text):
    """Yield a message for each line: when, by whom, its name and its fields."""
    for line in text.strip().splitlines():
        at_s, sender, name, *fields = line.split()
        yield message(float(at_s), 1, sender, name, *fields)


def session(number, at_s, *more, by="gateway", lasts_s=5.0):
    return [
        Opened(at_s=at_s, connection=number),
        message(at_s, number, "client", "versionOffer", "v176..178"),
        message(at_s, number, "gateway", "serverVersion", "178", "20260102 00:00:00"),
        message(at_s, number, "client", "startApi", "71", "2", "4", ""),
        *more,
        Closed(at_s=at_s + lasts_s, connection=number, by=by),
    ]


def attempt(number, at_s, by="gateway"):
    return [Opened(at_s=at_s, connection=number), Closed(at_s=at_s, connection=number, by=by)]


def test_connections_without_a_log_in_are_left_out():
    connections = list(connections_of([*attempt(1, 0.0), *session(2, 1.0), *attempt(3, 9.0)]))
    assert [connection.number for connection in connections] == [2]


def test_an_outage_lasts_until_the_last_attempt_that_the_gateway_ended():
    entries = [
        *session(1, 0.0), *attempt(2, 6.0), *attempt(3, 8.0), *attempt(4, 9.0, by="client"),
        *session(5, 20.0), *session(6, 30.0),
    ]  # fmt: skip
    assert [connection.down_s for connection in connections_of(entries)] == [3.0, 0.0, 0.0]


def test_a_pause_of_the_client_is_no_outage():
    entries = [*session(1, 0.0, by="client"), *session(2, 100.0)]
    assert [connection.down_s for connection in connections_of(entries)] == [0.0, 0.0]


def test_messages_belong_to_the_request_of_their_id_or_of_their_list():
    [connection] = connections_of(
        session(
            1,
            0.0,
            *messages("""
                1.0 client reqPositions 61 1
                1.1 client reqCurrentTime 49 1
                1.2 gateway positionEnd 62 1
                1.3 gateway currentTime 49 1 1767312000
                1.4 gateway managedAccounts 15 1 DUSIM0001
                1.5 gateway message_250
            """),
        )
    )
    asked = [step for step in connection.steps if isinstance(step, Asked)]
    told_steps = [step for step in connection.steps if isinstance(step, Told)]
    assert [step.asked for step in told_steps] == [asked[0], asked[1], None]
    assert isinstance(connection.steps[-1], Ended)


def test_where_the_recorder_ended_it_the_gateway_goes_on():
    [connection] = connections_of(session(1, 0.0, by="recorder"))
    assert connection.steps == ()


@pytest.mark.parametrize(
    ("recorded", "moved"),
    [
        ("49 1 1000", "49 1 1060"),
        ("46 6 5 45 1000", "46 6 5 45 1060"),
        ("46 6 5 88 1000", "46 6 5 88 1060"),
        ("46 6 5 45 0", "46 6 5 45 0"),  # no trade yet
        ("46 6 5 84 1000", "46 6 5 84 1000"),
        ("8 1 23:59", "8 1 00:00"),
        ("8 1 soon", "8 1 soon"),
        ("61 3 DUSIM0001 1000", "61 3 DUSIM0001 1000"),
    ],
)
def test_a_minute_later_the_times_are_a_minute_later(recorded, moved):
    assert shifted(tuple(recorded.split()), 60.0) == tuple(moved.split())


def test_at_the_time_of_the_recording_nothing_moves():
    assert shifted(("8", "1", "12:34"), 0.0) == ("8", "1", "12:34")
