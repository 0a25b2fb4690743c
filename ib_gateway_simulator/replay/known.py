"""What the recorded gateway has said so far, to answer requests that were not recorded."""

from __future__ import annotations

from ib_gateway_simulator.protocol import account_messages, messages
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.requests import Request


class Known:
    """The newest rows, values and contracts that were played, of all connections together.

    A list counts only after it was played to its end: half of one would pass for a flat account.
    """

    def __init__(self) -> None:
        self._login: dict[str, Fields] = {}
        self._positions: dict[tuple[str, str], Fields] = {}
        self._listed = False
        self._values: dict[str, dict[tuple[str, str], Fields]] = {}
        self._rows: dict[str, dict[str, Fields]] = {}
        self._downloaded: set[str] = set()
        self._details: dict[int, list[Fields]] = {}

    def note(self, fields: Fields, request: Request | None) -> None:
        """Keep what a message says."""
        match fields[0], len(fields):
            case (("9" | "15"), _):
                self._login[fields[0]] = fields
            case "61", 16:
                self._positions[fields[2], fields[3]] = fields
            case "62", _:
                self._listed = True
            case "6", 6:
                self._values.setdefault(fields[5], {})[fields[2], fields[4]] = fields
            case "7", 20:
                self._rows.setdefault(fields[19], {})[fields[2]] = fields
            case "54", 3:
                account = fields[2] or (request.account if request else "")
                self._downloaded.add(account)
            case "10", _ if request is not None and request.contract.conid:
                self._details.setdefault(request.contract.conid, []).append(fields)
            case _:
                pass

    def log_in(self) -> list[Fields]:
        """Return what a client gets that logs in after the last recorded connection."""
        return [self._login[kind] for kind in ("15", "9") if kind in self._login]

    def answer(self, request: Request, now_s: float) -> list[Fields] | None:
        """Return the answer to a request that was not recorded; None where nothing is known."""
        match request.name:
            case "reqCurrentTime":
                return [messages.current_time(int(now_s))]
            case "reqIds" if "9" in self._login:
                return [self._login["9"]]
            case "reqManagedAccts" if "15" in self._login:
                return [self._login["15"]]
            case "reqPositions" if self._listed:
                return [*self._positions.values(), account_messages.position_end()]
            case "reqAccountUpdates" if not request.subscribe:
                return [messages.error(-1, Code.ACCOUNT_UNSUBSCRIBED)]
            case "reqAccountUpdates" if request.account in self._downloaded:
                account = request.account
                values = self._values.get(account, {}).values()
                rows = self._rows.get(account, {}).values()

                return [*values, *rows, account_messages.account_download_end(account)]
            case "reqContractDetails" if request.contract.conid in self._details:
                by_venue = {row[7]: row for row in self._details[request.contract.conid]}
                own = [("10", str(request.req_id), *row[2:]) for row in by_venue.values()]
                return [*own, ("52", "1", str(request.req_id))]
            case "cancelPositions" | "setServerLogLevel" | "reqMarketDataType":
                return []
            case name if name.startswith("cancel"):
                return []
            case _:
                return None
