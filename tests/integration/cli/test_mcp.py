"""The tools of an assistant, as a program: each version of its library speaks the same lines."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import pytest

from position_sync_dagster.cli.mcp import MOST_CHARACTERS, TOOLS
from position_sync_dagster.money.lake import MoneyLake
from tests.integration.web.test_figures import row
from tests.support.demo_program import PROGRAM
from tests.support.legs import leg

pytestmark = pytest.mark.extra


class Assistant:
    """A client that sends lines of JSON-RPC: those of the libraries differ between versions."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server
        self._requests = 0
        asked = {"protocolVersion": "2025-06-18", "capabilities": {}}
        self.greeting = self.request(
            "initialize", asked | {"clientInfo": {"name": "test", "version": "1"}}
        )
        self._send({"method": "notifications/initialized"})

    def request(self, method: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Return the result of a request; what the server says besides is passed over."""
        self._requests += 1
        self._send({"id": self._requests, "method": method, "params": parameters or {}})
        for line in self._server.stdout:
            answer = json.loads(line)
            if answer.get("id") == self._requests:
                return answer["result"]
        raise AssertionError(f"the server ended with {self._server.wait()}")

    def _send(self, message: Mapping[str, Any]) -> None:
        self._server.stdin.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
        self._server.stdin.flush()

    def asked(self, tool: str, **arguments: object) -> tuple[bool, str]:
        """Return whether a tool refuses, and its text."""
        answer = self.request("tools/call", {"name": tool, "arguments": arguments})
        (content,) = answer["content"]
        return answer.get("isError", False), content["text"]

    def answered(self, tool: str, **arguments: object) -> Any:
        """Return what a tool answers."""
        is_refused, text = self.asked(tool, **arguments)
        assert not is_refused, text
        assert 0 < len(text) <= MOST_CHARACTERS + 100, tool
        return json.loads(text)


@pytest.fixture
def assistant(lake: MoneyLake) -> Iterator[Assistant]:
    """Return a client of the command, in whose lake each of 59 legs has a strategy of its own."""
    conids = range(1, 60)
    lake.registry.sync.add_many([leg(conid, f"condor-{conid}") for conid in conids])
    lake.updates.sync.append([row(conid) for conid in conids])
    with subprocess.Popen(
        [PROGRAM, "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        yield Assistant(server)
        server.stdin.close()
        assert server.wait() == 0


# What each tool is asked; the others need nothing.
ARGUMENTS = {"what_if": {"spot": [-5.0, 5.0], "strategy": "condor-1"}}

# What is asked, and what the refusal names.
REFUSED = """
    positions | {"strategy": "condr-1"}  | The nearest are: condor-1
    why       | {"strategy": "condr-1"}  | The nearest are: condor-1
    campaigns | {"strategy": "condr-1"}  | The nearest are: condor-1
    what_if   | {"close": ["condr-1"]}   | The nearest are: condor-1
    what_if   | {"spot": [20000.0]}      | less than or equal to 10000
    changes   | {"strategy": "condor-1"} | There is no parameter 'strategy'
    figures   | {"part": "strategys"}    | The nearest are
    figures   | {"fields": ["strik"]}    | The nearest are
"""


def test_each_tool_answers_briefly_says_how_to_ask_on_and_names_what_is_wrong(assistant):
    server = assistant.greeting
    assert server["serverInfo"]["version"] == metadata.version("position-sync-dagster")
    assert "ask the same tool again" in server["instructions"]
    listed = assistant.request("tools/list")["tools"]
    assert [tool["name"] for tool in listed] == [*TOOLS]
    assert all(tool["annotations"]["readOnlyHint"] for tool in listed)

    answers = {tool: assistant.answered(tool, **ARGUMENTS.get(tool, {})) for tool in TOOLS}
    assert [row["spot"] for row in answers["what_if"]["what_if"]] == [-5.0, 5.0]
    for tool in ("campaigns", "changes", "fills", "results", "returns"):
        assert answers[tool] == {"more": {}, tool: []}

    conids: list[int] = []
    cursor = 0
    while cursor is not None:
        page = assistant.answered("positions", cursor=cursor, fields=["conid", "market_value"])
        conids += [position["conid"] for position in page["positions"]]
        cursor = page["more"].get("positions")
    assert conids == [*range(1, 60)]

    figures = answers["figures"]
    after = assistant.answered(
        "figures", part="strategies", cursor=figures["more"]["strategies"], fields=["strategy"]
    )
    names = [entry["strategy"] for entry in figures["strategies"] + after["strategies"]]
    assert sorted(names) == sorted(f"condor-{conid}" for conid in range(1, 60))

    for line in REFUSED.strip().splitlines():
        tool, arguments, said = (column.strip() for column in line.split(" | "))
        is_refused, text = assistant.asked(tool, **json.loads(arguments))
        assert is_refused, tool
        assert said in text, tool
