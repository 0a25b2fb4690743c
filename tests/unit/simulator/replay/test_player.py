"""The player: which recorded request a client's request is, and when."""

import asyncio

import pytest

from ib_gateway_simulator.protocol import requests
from ib_gateway_simulator.recordings.entry import Message
from ib_gateway_simulator.replay.known import Known
from ib_gateway_simulator.replay.player import Player
from ib_gateway_simulator.replay.timeline import connections_of
from tests.support.waiting import eventually

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


def ask(*fields):
    return requests.decode([str(field) for field in fields])


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
    from ib_gateway_simulator.recordings.recording import load_recording
    from tests.support.recorded_session import SMALL

    line = next(e for e in load_recording(SMALL).entries if getattr(e, "name", "") == "reqMktData")
    return (*line.fields[:2], "11", *line.fields[3:])
