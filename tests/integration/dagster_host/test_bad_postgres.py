"""A Postgres that cannot be used: each program names the reason, and none shows a password."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.demo_program import wait_for
from tests.support.extent import EVERYTHING
from tests.support.hosts import Host
from tests.support.ports import free_port

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason=postgres.MISSING)

WRONG = "wr0ng/p@ss :word%41"
REFUSED = "password authentication failed"

ENDED = "too many retries for DB connection"


@pytest.fixture(scope="module")
def database() -> Iterator[postgres.Postgres]:
    with postgres.running() as server:
        yield server


@pytest.fixture
def host(tmp_path: Path, database: postgres.Postgres) -> Iterator[Callable[..., Host]]:
    """Return a host without a gateway; some of its variables may be other ones."""
    hosts: list[Host] = []

    def make(**more: str) -> Host:
        environment = database.environment | {
            "POSITION_SYNC_LAKE": str(tmp_path / "lake"),
            "POSITION_SYNC_GATEWAY_PORT": str(free_port()),
        }
        hosts.append(Host(tmp_path / f"host-{len(hosts)}", environment | more))
        return hosts[-1]

    yield make
    for one in hosts:
        one.kill()


def says(log: Path, reason: str) -> bool:
    return log.exists() and reason in log.read_text()


def assert_no_password(*texts: str) -> None:
    secrets = {part for one in (WRONG, postgres.PASSWORD) for part in (one, *one.split("/"))}
    assert [one for one in secrets for text in texts if one in text] == []


@pytest.mark.parametrize(
    ("mistake", "reason", "services"),
    [
        ({"PGPASSWORD": WRONG}, REFUSED, ("code", "daemon", "webserver")),
        ({"PGDATABASE": "elsewhere"}, 'database "elsewhere" does not exist', ("daemon",)),
        ({"PGPORT": "unreachable"}, "Connection refused", ("webserver",)),
    ][: 3 if EVERYTHING else 1],
)
def test_each_program_names_the_reason_and_waits_or_ends(host, mistake, reason, services) -> None:
    if "PGPORT" in mistake:
        mistake = {"PGPORT": str(free_port())}
    one = host(**mistake)
    one.start(*services)
    for service in services:
        log = one.log(service)
        wait_for(f"the {service} says {reason!r}", partial(says, log, reason))
        if service != "daemon":
            wait_for(f"the {service} ends, to be started again", partial(says, log, ENDED))
    assert "daemon" not in services or ENDED not in one.log("daemon").read_text()
    one.note_commands()
    assert_no_password(one.logs(), *one.commands)
