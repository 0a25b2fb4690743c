"""The recorded connections: their requests, what answers them, and the outages between them."""

from ib_gateway_simulator.recordings.entry import Closed, Message, Opened
from ib_gateway_simulator.replay.timeline import Asked, Ended, Told, connections_of


def message(at_s, connection, sender, name, *fields):
    return Message(at_s=at_s, connection=connection, sender=sender, name=name, fields=fields)


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
    found = list(connections_of([*attempt(1, 0.0), *session(2, 1.0), *attempt(3, 9.0)]))
    assert [connection.number for connection in found] == [2]


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
            message(1.0, 1, "client", "reqPositions", "61", "1"),
            message(1.1, 1, "client", "reqCurrentTime", "49", "1"),
            message(1.2, 1, "gateway", "positionEnd", "62", "1"),
            message(1.3, 1, "gateway", "currentTime", "49", "1", "1767312000"),
            message(1.4, 1, "gateway", "managedAccounts", "15", "1", "DUSIM0001"),
            message(1.5, 1, "gateway", "message 250"),
        )
    )
    asked = [step for step in connection.steps if isinstance(step, Asked)]
    told = [step for step in connection.steps if isinstance(step, Told)]
    assert [step.asked for step in told] == [asked[0], asked[1], None]
    assert isinstance(connection.steps[-1], Ended)


def test_where_the_recorder_ended_it_the_gateway_goes_on():
    [connection] = connections_of(session(1, 0.0, by="recorder"))
    assert connection.steps == ()
