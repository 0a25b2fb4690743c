"""Write what is known of the wire: `python -m tests.support.known_wire`.

It comes from the recorded messages and sessions, from the tables of the simulator, and from streams
of simulated gateways. `test_wire.py` says when it is due.
"""

import asyncio
import json
import re
from collections import defaultdict
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ib_gateway_simulator import SimulatedGateway, load_book
from ib_gateway_simulator.control.actions import check, perform
from ib_gateway_simulator.market_data import ticks
from ib_gateway_simulator.protocol import request_ids
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.message_ids import NAMES
from ib_gateway_simulator.protocol.request_places import request_place
from ib_gateway_simulator.protocol.versions import as_of_version
from ib_gateway_simulator.recordings.entry import Message
from ib_gateway_simulator.recordings.recording import load_recording
from position_sync_dagster.gateway.codes import ENDS_LINE
from position_sync_dagster.processes.heard import wire
from position_sync_dagster.processes.heard.wire import Heard, SaidKind
from tests.support.recorded_session import SMALL

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "ib_gateway_simulator/tests/integration/protocol/recorded.jsonl"
FILE = ROOT / "position_sync_dagster/processes/heard/known_wire.json"

# Messages of lists, of rules and of contracts have as many fields as there are entries.
VARYING = ("10", "75", "77", "78", "79", "80", "82", "85", "93")
# Where a request that the stream makes has its id.
ASKED = {"1": 2, "2": 2, "7": 2, "9": 2, "92": 1, "93": 1, "94": 1, "95": 1}

# What a message is about, and the place of it.
ABOUT = {kind: ["tick", 3] for kind in ("1", "2", "45", "46")}
ABOUT |= {"21": ["tick", 2], "4": ["code", 3], "6": ["tag", 2], "63": ["tag", 4], "73": ["tag", 5]}

# What answers a request in full.
ANSWERS = {
    "reqAccountUpdates": "accountDownloadEnd",
    "reqPositions": "positionEnd",
    "reqContractDetails": "contractDetailsEnd",
    "reqExecutions": "execDetailsEnd",
    "reqMktData": "ticks",
    "reqMktData of an option": "model tick",
    "reqPnL": "pnl",
    "reqPnLSingle": "pnlSingle",
}

# What the design assumes (IB, "Account Updates" and "Profit and Loss"; the rest was never measured
# on a gateway), in seconds: least and most.
ASSUMED = {
    "updatePortfolio, then updatePortfolio": [150, 210],
    "updateAccountValue, then updateAccountValue": [150, 210],
    "pnl, then pnl": [0.5, 2],
    "pnlSingle, then pnlSingle": [0.5, 2],
    "reqAccountUpdates, then updateAccountValue": [0, 5],
    "reqMktData of an option, then model tick": [0, 10],
    "2103, then 2104": [0, 300],
    "1100, then 1102": [0, 900],
    "closed, then serverVersion": [0, 900],
}

# The order of what opens a line is not fixed (ibkr-go delayed_quote_reconnect and
# api_duplicate_quote_subscriptions_aapl), and a refusal may come at any time.
OF_LINES = ("reqMktData", "tickReqParams", "marketDataType", "ticks", "error")
ANY_ORDER = [(before, after) for before in OF_LINES for after in OF_LINES[1:]]
OF_PROFITS = ("reqPnLSingle", "reqPnL", "pnlSingle", "pnl")
ANY_ORDER += [(name, "error") for name in OF_PROFITS]
REFUSED = ("reqMktData", "ticks", *OF_PROFITS, "reqContractDetails", "reqExecutions")
ANY_ORDER += [(name, str(int(code))) for name in REFUSED for code in ENDS_LINE]
ANY_ORDER += [("300", "300")]
ANY_ORDER += [("reqMktData of an option", "model tick"), ("model tick", "model tick")]
# A farm or IB comes back, says the same again, or is lost again.
OF_FARMS = ("2103 2104 2108 2119", "2105 2106 2107", "2157 2158 2159", "1100 1101 1102 2110")
for codes in OF_FARMS:
    ANY_ORDER += product(codes.split(), repeat=2)
ANY_ORDER += [("closed", "serverVersion"), ("serverVersion", "closed")]
ANY_ORDER += [("serverVersion", "serverVersion"), ("closed", "closed")]
ANY_ORDER += [("reqContractDetails", "error"), ("reqExecutions", "error")]
# Values, rows and times of an account come as they change, and an end may come late.
OF_ACCOUNTS = ("updateAccountValue", "updatePortfolio", "updateAccountTime", "accountDownloadEnd")
ANY_ORDER += product(OF_ACCOUNTS, repeat=2)
ANY_ORDER += [("reqAccountUpdates", after) for after in OF_ACCOUNTS]
ANY_ORDER += [("position", "position"), ("positionEnd", "position")]
ANY_ORDER += [("reqPositions", "positionEnd"), ("positionEnd", "positionEnd")]
WORDS = re.compile(r"[^\W\d_]{2,}")


# Texts that are quoted in public threads: IBC issues/143, Lean.Brokerages.IB issues/169; that of
# 322 is the class of it that osauer/ibkr names.
IN_THREADS = {
    "322": ["Error processing request\0"],
    "1100": ["Connectivity between IBKR and Trader Workstation has been lost."],
    "1102": [
        "Connectivity between IB and Trader Workstation has been restored - data maintained. The "
        "following farms are connected: \0. The following farms are not connected: \0.",
        "Connectivity between IBKR and Trader Workstation has been restored - data maintained. "
        "All data farms are connected: \0.",
    ],
}


def texts_of_codes() -> dict[str, list[str]]:
    """Return the published texts by code, with … for what varies."""
    texts = defaultdict(list, {code: [*several] for code, several in IN_THREADS.items()})
    for code in Code:
        texts[str(int(code))].append(re.sub(r"\{\w+\}", "\0", code.text))
    return texts


def recorded_messages() -> list[list[str]]:
    """Return the recorded messages, in the layout of version 178 where that is known."""
    lines = map(json.loads, RECORDED.read_text().splitlines())
    return [line.get("fields_178") or line["fields"] for line in lines if line["id"] != "handshake"]


def names_of_messages() -> dict[str, str]:
    """Return the names of messages, by their ids."""
    lines = map(json.loads, RECORDED.read_text().splitlines())
    recorded = {str(line["id"]): line["name"] for line in lines if line["id"] != "handshake"}
    return dict(sorted((recorded | NAMES).items(), key=lambda item: int(item[0])))


def ticks_of_the_simulator() -> set[str]:
    """Return the types of ticks that the simulator can send, each with its message."""
    of_name = {"timestamp": "tickString", "halted": "tickGeneric", "model": "tickOptionComputation"}

    def message_of(name: str) -> str:
        is_size = name.endswith("_size") or name == "volume"
        return of_name.get(name, "tickSize" if is_size else "tickPrice")

    types = [*ticks._LIVE_TYPES.items(), *ticks._DELAYED_TYPES.items()]
    return {f"{kind} ({message_of(name)})" for name, kind in types}


def hear_recording(heard: Heard, path: Path) -> None:
    """Pass a recorded session to a listener."""
    for entry in load_recording(path).entries:
        if isinstance(entry, Message) and entry.fields and entry.name != "versionOffer":
            is_greeting = entry.name == "serverVersion"
            fields = (entry.name, entry.fields[0]) if is_greeting else entry.fields
            heard(entry.sender == "client", fields)


# What a simulated gateway does while it is heard.
PLAYED = {
    "small": (
        ("connectivity", {"state": "lost"}), ("connectivity", {"state": "restored_data_kept"}),
        *(("farm", {"code": code}) for code in (2103, 2104, 2107, 2108, 2119, 2157, 2158)),
        ("account_pnl", {"account": "DUSIM0001", "answer": "unset"}),
        ("position_pnl", {"account": "DUSIM0001", "answer": "unset"}),
        ("holding", {"account": "DUSIM0001", "conid": 921000001, "position": "nan"}),
        ("close", {"account": "DUSIM0002", "conid": 920000002}),
    ),
    "demo": (("reset_day", {}), ("execution_times", {"zone": "US/Eastern"})),
}  # fmt: skip


async def hear_simulator(heard: Heard, book: str) -> None:
    """Run a stream beside a simulated gateway, and pass its messages to a listener."""
    from dataclasses import replace

    from position_sync_dagster.money.lake import MoneyLake
    from position_sync_dagster.money.stream_parts import with_money
    from position_sync_dagster.sync.stream.streamer import stream
    from tests.support.settings import make_settings

    def complete(tables, *given):
        return replace(with_money(tables, *given), listeners=(heard,))

    options = {"tick_interval_s": 0.1, "refresh_interval_s": 2.0, "pnl_interval_s": 0.2}
    async with SimulatedGateway(load_book(book), port=0, control_port=None, **options) as sim:
        with TemporaryDirectory() as folder:
            lake = MoneyLake(folder)
            await lake.initialize()
            held = [row for row in sim.positions() if row["strike"] and row["quantity"]]
            for row in held[:8]:
                await lake.registry.add_active(
                    row["conid"], row["symbol"], row["right"], row["strike"], row["expiry"], "one"
                )
            stop = asyncio.Event()
            settings = make_settings(gateway_port=sim.port, lake=folder)
            task = asyncio.create_task(stream(lake, settings, stop=stop, complete=complete))
            await asyncio.sleep(8)
            for name, arguments in PLAYED[book]:
                await perform(sim, name, check(name, arguments))
                await asyncio.sleep(0.5)
            await asyncio.sleep(8)
            stop.set()
            await task


def known_file(said: dict[SaidKind, set[str]], words: set[str]) -> str:
    """Return the file."""
    places = {}
    for kind in NAMES:
        place = request_place((kind, *"000000000"))
        if place is not None:
            places[kind] = place

    stored = {
        "names": names_of_messages(),
        "requests": {str(number): name for number, name in request_ids.NAMES.items()},
        "places": places,
        "asked": ASKED,
        "about": ABOUT,
        "answers": ANSWERS,
        "assumed": ASSUMED,
        "varying": sorted(VARYING),
        "words": sorted(words),
        "said": {kind: sorted(said[kind]) for kind in SaidKind},
    }
    return json.dumps(stored, indent=1, ensure_ascii=True) + "\n"


async def main() -> None:
    """Write the file anew, of which nothing is lost that stands in it."""
    recorded = recorded_messages()
    texts = texts_of_codes()
    published = " ".join(text for several in texts.values() for text in several)
    words = set(WORDS.findall(published.replace("\0", " ")))
    for fields in recorded:
        if fields[0] == "4" and len(fields) > 4:
            texts[fields[3]].append(fields[4])

    said: defaultdict[Any, set[Any]] = defaultdict(set)
    FILE.write_text(known_file(said, words))
    wire.vocabulary.cache_clear()
    heard = Heard()
    heard(False, (wire.GREETING, "178"))
    for fields in recorded:
        for version in range(157, 179):
            heard(False, as_of_version(tuple(fields), version))

    hear_recording(heard, SMALL)
    for book in PLAYED:
        await hear_simulator(heard, book)

    for each in heard.take():
        said[each.kind].add(each.name)
    said[SaidKind.MESSAGE] |= {*names_of_messages().values()}
    said[SaidKind.TICK] |= ticks_of_the_simulator()
    said[SaidKind.CODE] |= {f"{code} (error)" for code in texts}
    said[SaidKind.ORDER] |= {f"{before}, then {after}" for before, after in ANY_ORDER}
    vocabulary = wire.vocabulary()
    for code, several in texts.items():
        for text in several:
            shown = vocabulary.published(text.replace("\0", "x1"))
            said[SaidKind.TEXT].add(f"{code}: {shown}")

    FILE.write_text(known_file(said, words))


if __name__ == "__main__":
    asyncio.run(main())
