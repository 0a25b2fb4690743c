"""Play what a rehearsal reported of a gateway: its messages, timing and faults, values made up.

`python -m ib_gateway_simulator.heard rehearsal.json --write scenario.yaml` writes what was new or
different as a scenario, which a test can play; without `--write` it serves it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ib_gateway_simulator import program
from ib_gateway_simulator.books.loader import load_book
from ib_gateway_simulator.control.actions import check, perform
from ib_gateway_simulator.control.scenario import Event
from ib_gateway_simulator.errors import RecordingError
from ib_gateway_simulator.options import PROGRAM_OPTIONS, Options
from ib_gateway_simulator.protocol.fields import UNSET
from ib_gateway_simulator.protocol.message_ids import NAMES
from ib_gateway_simulator.protocol.request_places import request_place
from ib_gateway_simulator.server import SimulatedGateway

BOOK = "small"
ACCOUNT = load_book(BOOK).accounts[0].name
OPTION = next(c.conid for c in load_book(BOOK).contracts.values() if c.is_option)

# The options that play a period.
PERIODS = {
    "pnlSingle, then pnlSingle": "pnl_interval_s",
    "updatePortfolio, then updatePortfolio": "refresh_interval_s",
}

# The faults that play a missing answer.
MISSING: Mapping[str, dict[str, Any]] = {
    "reqAccountUpdates": {"do": "download_end", "account": ACCOUNT, "delay_s": None},
    "reqPositions": {"do": "positions_end", "delay_s": None},
    "reqContractDetails": {"do": "contract_details", "conid": OPTION},
    "reqExecutions": {"do": "answer", "request": "reqExecutions", "answers": []},
    "reqMktData": {"do": "answer", "request": "reqMktData", "answers": []},
    "reqMktData of an option": {"do": "ticking", "conid": OPTION, "only": ["quote", "mark"]},
    "reqPnL": {"do": "account_pnl", "account": ACCOUNT, "answer": "silent"},
    "reqPnLSingle": {"do": "position_pnl", "account": ACCOUNT, "answer": "silent"},
}

# Values of the forms of fields.
MADE_UP = {"number": "1", "text": "X", "clock": "12:00", "unset": UNSET, "empty": ""}

# When what nobody requested comes first, in seconds, and how often at most.
FIRST_S = 4.0
LEAST_S = 1.0

_FORM = re.compile(r"^(.+): field (\d+) is (\w+)$", re.MULTILINE)
_NAME = re.compile(r"message \d+|\w+")

Shape = list[dict[str, Any]]


def load_report(path: Path) -> dict[str, Any]:
    """Read the file of a rehearsal.

    Raises:
        RecordingError: It cannot be read, or is of another format or version.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if (report["format"], report["version"]) != ("ibheard", 1):
            raise ValueError("it has another format or version")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordingError(path, 0, f"this is no file of a rehearsal: {error}") from None
    return report


def options_of(report: Mapping[str, Any], options: Options) -> Options:
    """Return options with the periods that were different."""
    periods = {
        PERIODS[line["about"]]: line["p50"]
        for line in report["assumed"]
        if line["verdict"] == "different" and line["about"] in PERIODS
    }
    return replace(options, **periods)


def scenario_of(report: Mapping[str, Any]) -> Shape:
    """Return the actions that play what was missing, and what was new."""
    missing = [
        {"at_s": 0.0, **MISSING[line["about"]]}
        for line in report["assumed"]
        if line["verdict"] == "different" and line["about"] in MISSING
    ]
    return [*missing, *_new(report)]


def _new(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    forms: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for name, place, form in _FORM.findall("\n".join(line["text"] for line in report["said"])):
        forms[name].setdefault(int(place), MADE_UP[form])  # the new ones come first

    played = set()
    for line in report["said"]:
        told, _, name = line["text"].rstrip(")").partition(" (")
        if line["verdict"] != "new":
            continue
        every_s = max(LEAST_S, round(60 * report["minutes"] / line["count"], 3))
        action: dict[str, Any] = {"at_s": FIRST_S, "every_s": every_s}
        match line["about"]:
            case "code":
                yield action | {"do": "error", "code": int(told), "text": f"Code {told}"}
            case "tag":
                yield action | {"do": "say", "messages": [["6", "2", told, "1", "USD", ACCOUNT]]}
            case "tick":
                place = 2 if name == "tickOptionComputation" else 3
                yield action | _said(name, forms[name] | {place: told})
            case "message" | "length" | "form":
                name = _NAME.match(told)[0]  # type: ignore[index]
                if name not in played:
                    yield action | _said(name, forms[name])
                played.add(name)


def _said(name: str, fields: Mapping[int, str]) -> dict[str, Any]:
    """Return the action that sends a message, to each line if it is about a request."""
    ids = {name: number for number, name in NAMES.items()}
    kind = ids.get(name, name.removeprefix("message "))
    message = [kind, *(fields.get(place, "") for place in range(1, max(fields, default=0) + 1))]
    place = request_place(tuple(message))
    if place is None:
        return {"do": "say", "messages": [message]}
    message[place] = "line"
    return {"do": "tick_lines", "message": message}


@asynccontextmanager
async def played(
    report: Mapping[str, Any], options: Options = PROGRAM_OPTIONS
) -> AsyncIterator[SimulatedGateway]:
    """Run a gateway that does what was reported: what is missing is missing from the start."""
    async with SimulatedGateway(load_book(BOOK), options_of(report, options)) as gateway:
        events = [_event_of(action) for action in scenario_of(report)]
        for event in events:
            if not event.at_s:
                await perform(gateway, event.do, event.arguments)

        later = [event for event in events if event.at_s]
        playing = asyncio.create_task(program.play_to_a_client(gateway, later))
        try:
            yield gateway
        finally:
            playing.cancel()


def _event_of(action: Mapping[str, Any]) -> Event:
    given = dict(action)
    do = given.pop("do")
    at_s, every_s = given.pop("at_s"), given.pop("every_s", None)
    return Event(at_s=at_s, every_s=every_s, do=do, arguments=check(do, given))


async def _serve(report: Mapping[str, Any], options: Options) -> None:
    stop = program.stop_signal()
    async with played(report, options) as gateway:
        ready = {"port": gateway.port, "control_port": gateway.control_port, "host": gateway.host}
        typer.echo(json.dumps(ready))
        await stop.wait()


def main(
    file: Annotated[Path, typer.Argument(help="The file of a rehearsal.")],
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the scenario, and end.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the gateway; 0: any free.")] = 0,
) -> None:
    """Play the shape of a report, or write it as a scenario."""
    report = load_report(file)
    if write is None:
        asyncio.run(_serve(report, replace(PROGRAM_OPTIONS, port=port)))
    else:
        write.write_text(yaml.safe_dump(scenario_of(report), sort_keys=False), "utf-8")


if __name__ == "__main__":
    typer.run(main)
