"""Ports on this machine: free, taken, and those of the simulator."""

import socket
from unittest.mock import Mock

import pytest

from position_sync_dagster import demo
from position_sync_dagster.processes import ports
from position_sync_dagster.processes.child_process import StopRequest
from tests.support.ports import free_port


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_named_with_the_option_that_changes_it(taken):
    with pytest.raises(ports.PortTakenError, match=rf"{taken}.*Dagster UI.*--ui-port"):
        ports.require_free(taken, purpose="Dagster UI", option="--ui-port")


def test_the_next_free_port_is_found(taken):
    assert ports.first_free(taken) > taken


def test_a_port_in_use_moments_ago_is_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            client.recv(1)
    assert ports.is_free(port)


def test_a_simulator_that_does_not_answer_is_named():
    port = free_port()
    with pytest.raises(demo.SimulatorProcessError, match=str(port)):
        demo.DemoRun.ask(Mock(control_port=port), "/stats")


def test_the_ports_are_read_from_the_output_of_the_simulator_however_long_it_takes():
    printed = 'warming up\n{"half": \n{"port": 4010, "control_port": 4011, "host": "127.0.0.1"}\n'
    looks = iter([""] * 6000 + ["nothing yet", printed])
    child = Mock(tail=lambda lines: next(looks))
    assert demo.wait_until_ready(child, Mock(spec=StopRequest)) == (4010, 4011)
