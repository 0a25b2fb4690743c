"""Statements of several people: tokens and queries by login, from a server that plays Flex."""

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from position_sync_dagster.money.defs.statements import imported
from position_sync_dagster.money.past import statement_folder
from position_sync_dagster.money.past.flex_service import FlexService
from position_sync_dagster.money.past.statement_folder import flex_queries
from position_sync_dagster.settings import load_settings
from tests.support.flex_files import position, refused, statement, trade
from tests.support.receiver import Answer, serving

OF_ANNA, OF_BEN, OF_ALL = ("-".join([name, "keeps", "it"]) for name in ("anna", "ben", "all"))
SECRETS = (OF_ANNA, OF_BEN, OF_ALL)
FILE = f"""\
gateways:
- {{name: anna, port: 4001, accounts: [DUSIM0001], flex_token: {OF_ANNA}, flex_query_id: "11, 12"}}
- {{name: ben, port: 4002, accounts: [DUSIM0002], flex_token: {OF_BEN}, flex_query_id: 11}}
- {{name: carl, port: 4003, accounts: [DUSIM0003]}}
"""


def traded(name: str, day: str, account: str = "DUSIM0001") -> bytes:
    rows = {"accountId": account}
    return statement(
        position(day=day, **rows),
        trades=(trade(name, dateTime=f"{day};153000", **rows),),
        account=account,
        first=day,
    )


class FlexServer:
    """Plays the Flex Web Service: a reference for each token and query, then its statement."""

    def __init__(self) -> None:
        self.statements = {
            (OF_ANNA, "11"): traded("anna-march", "20260305"),
            (OF_ANNA, "12"): traded("anna-april", "20260406"),
            (OF_BEN, "11"): traded("ben-march", "20260305", "DUSIM0002"),
            (OF_ALL, "7"): traded("all-may", "20260504"),
        }
        self.refused: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []

    def take(self, request: BaseHTTPRequestHandler) -> Answer:
        parts = urlsplit(request.path)
        query = parse_qs(parts.query)
        (token,), (subject,) = query["t"], query["q"]
        if parts.path.endswith("GetStatement"):
            return 200, {}, self.statements[token, subject.removeprefix("R")]

        self.asked.append((token, subject))
        if token in self.refused:
            return 200, {}, self.refused[token]
        reference = f"<Status>Success</Status><ReferenceCode>R{subject}</ReferenceCode>"
        return 200, {}, f"<FlexStatementResponse>{reference}</FlexStatementResponse>".encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlexServer]:
    server = FlexServer()
    with serving(server.take) as port:
        service = FlexService(url=f"http://127.0.0.1:{port}/flex", patience_s=0.0)
        monkeypatch.setattr(statement_folder, "FlexService", lambda: service)
        yield server


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    monkeypatch.setenv("POSITION_SYNC_TRADING_MODE", "SIMULATED")
    monkeypatch.setenv("POSITION_SYNC_GATEWAYS_FILE", str(tmp_path / "gateways.yaml"))
    monkeypatch.setenv("POSITION_SYNC_FLEX_TOKEN", OF_ALL)
    monkeypatch.setenv("POSITION_SYNC_FLEX_QUERY_ID", "7")
    return (tmp_path / "gateways.yaml").write_text


def everything_under(path: Path) -> bytes:
    files = [file for file in path.rglob("*") if file.is_file()]
    return b"\n".join(str(file).encode() + file.read_bytes() for file in files)


def test_a_token_that_is_refused_is_named_alone_and_the_others_are_imported(
    world, lake, folder, server, write, caplog, tmp_path
):
    caplog.set_level("DEBUG")
    write(FILE)
    server.refused[OF_BEN] = refused("1012", f"Token {OF_BEN} has expired.")
    result = world.materialize(imported)
    assert result.success
    assert server.asked == [(OF_ALL, "7"), (OF_ANNA, "11"), (OF_ANNA, "12"), (OF_BEN, "11")]
    assert sorted(lake.executions.rows()["execution_id"]) == ["all-may", "anna-april", "anna-march"]

    (check,) = result.get_asset_check_evaluations()
    assert check.passed is False
    assert check.metadata["left_out"].value == 1
    assert "query 11 of ben: the Flex service answered 1012" in check.description
    assert "anna" not in check.description
    event, *_ = result.asset_materializations_for_node("statements")
    assert event.metadata["downloaded"].value == 3

    (tmp_path / "gateways.yaml").unlink()
    written = everything_under(tmp_path) + caplog.text.encode()
    written += "\n".join(map(repr, result.all_events)).encode() + repr(load_settings()).encode()
    for secret in SECRETS:
        assert secret.encode() not in written


def test_two_logins_with_queries_of_one_id_have_files_of_their_own(
    world, lake, folder, server, write
):
    write(FILE)
    result = world.materialize(imported)
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    assert "ben-march" in lake.executions.rows()["execution_id"].to_list()
    assert sorted(path.name for path in folder.glob("*.xml")) == [
        "7-20260504-20260504.xml",
        "anna11-20260305-20260305.xml",
        "anna12-20260406-20260406.xml",
        "ben11-20260305-20260305.xml",
    ]


def test_a_file_with_a_mistake_is_named_and_the_query_of_the_settings_is_downloaded(
    world, lake, folder, server, write
):
    write("gateways:\n- {name: anna}\n")
    (check,) = world.materialize(imported).get_asset_check_evaluations()
    assert check.passed is False
    assert "gateways.yaml, line 2" in check.description
    assert lake.executions.rows()["execution_id"].to_list() == ["all-may"]


def test_a_login_without_its_own_has_the_queries_of_the_settings_which_are_asked_once(
    write, monkeypatch
):
    write("gateways:\n- {name: a, port: 1, accounts: [U1]}\n- {name: b, port: 2, accounts: [U2]}\n")
    monkeypatch.setenv("POSITION_SYNC_FLEX_QUERY_ID", "7, 8,")
    queries, mistakes = flex_queries(load_settings())
    assert [query.name for query in queries] == ["query 7", "query 8"]
    assert not mistakes
    assert OF_ALL not in repr(queries)

    write("gateways:\n- {name: a, port: 1, accounts: [U1], flex_query_id: 9}\n")
    queries, _mistakes = flex_queries(load_settings())
    assert [query.name for query in queries] == ["query 7", "query 8", "query 9 of a"]
    monkeypatch.setenv("POSITION_SYNC_FLEX_TOKEN", "")
    assert flex_queries(load_settings()) == ([], [])
