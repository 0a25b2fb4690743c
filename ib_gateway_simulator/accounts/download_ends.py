"""The ends of account downloads, and the settings that delay or spoil them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.protocol import account_messages


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadEnd:
    """When the end of an account's download comes, and whether it names the account."""

    # Seconds after the last row; None means never.
    delay_s: float | None = 0.0
    blank: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class _LateEnd:
    """An end that is still to come; `due` if its time came while there was no connection to IB."""

    client: ClientConnection
    account: str
    name: str
    due: bool = False


ON_TIME = DownloadEnd()


class DownloadEnds:
    """Sends the end of each download, at its time.

    Args:
        call_later: Runs an action after some seconds, but not during a pause.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], None]) -> None:
        self._call_later = call_later
        self._ends: dict[str, DownloadEnd] = {}
        self._late: list[_LateEnd] = []
        self._silent = False

    def set(self, account: str, end: DownloadEnd) -> None:
        """Set how the next downloads of an account end."""
        self._ends[account] = end

    def finish(self, client: ClientConnection, account: str) -> None:
        """Send the end of a download now, or schedule it for its time."""
        end = self._ends.get(account, ON_TIME)
        name = account
        if end.blank:
            name = ""

        if end.delay_s is None:
            return
        if not end.delay_s:
            client.send(account_messages.account_download_end(name))
            return
        late = _LateEnd(client=client, account=account, name=name)
        self._late.append(late)
        self._call_later(end.delay_s, lambda: self._send_late(late))

    def _send_late(self, late: _LateEnd) -> None:
        if late not in self._late:
            return
        if self._silent:
            late.due = True
            return
        self._late.remove(late)
        late.client.send(account_messages.account_download_end(late.name))
        late.client.flush()

    def forget(self, client: ClientConnection | None = None, account: str | None = None) -> None:
        """Never send the late ends of a client or an account; None stands for all."""
        self._late = [
            late
            for late in self._late
            if client not in (None, late.client) or account not in (None, late.account)
        ]

    def start_silence(self) -> None:
        """Send no late end from now on, as without a connection to IB."""
        self._silent = True

    def end_silence(self) -> None:
        """Send late ends again, first those whose time came in the silence."""
        self._silent = False
        for late in [late for late in self._late if late.due]:
            self._send_late(late)
