"""The YAML file of logins: where the gateway of each is, and which accounts it serves."""

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from yaml.nodes import Node

from position_sync_dagster.domain.update import TradingMode, trading_mode_of
from position_sync_dagster.errors import GatewaysFileError
from position_sync_dagster.yaml_file import YamlFile, absent

NAMED_BY = "POSITION_SYNC_GATEWAYS_FILE"
MOST_LOGINS = 1_000

_FIELDS = (
    "name", "host", "port", "client_id", "client_ids", "max_lines", "reserved_lines",
    "trading_mode", "accounts", "tags",
)  # fmt: skip
_BOUNDS = {
    "port": (1, 65_535),
    "client_id": (1, 2**31 - 1),
    "client_ids": (1, 32),
    "max_lines": (1, 100_000),
    "reserved_lines": (0, 100_000),
}
"""The bounds of the settings that these fields replace."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_:-]|\.(?!\.)){0,63}")
"""Dagster takes "..." in the name of a partition for a range."""
_ACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TAG = re.compile(r"(?:[A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_RESERVED = ("dagster/", ".dagster/", "position_sync/")
"""Tags by which Dagster and this package find runs again."""
_LOCAL = {"localhost": "127.0.0.1", "::1": "127.0.0.1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One login of the file; what it leaves out is as the settings say.

    Attributes:
        name: Its name in tables and messages, the `gateway_id`.
        accounts: The accounts that its gateway serves, all of them and no other.
        tags: Names and values of the tags that the runs of its stream carry.
    """

    name: str
    accounts: tuple[str, ...]
    port: int
    host: str | None = None
    client_id: int | None = None
    client_ids: int | None = None
    max_lines: int | None = None
    reserved_lines: int | None = None
    trading_mode: TradingMode | None = None
    tags: tuple[tuple[str, str], ...] = ()


def load_gateways(
    path: str | Path, *, host: str = "127.0.0.1", max_lines: int = 100, reserved_lines: int = 5
) -> tuple[Login, ...]:
    """Read the logins of a file, in the order of the file.

    Example of a file::

        gateways:
          - name: main
            port: 4001
            accounts: [U1234567, U1234568]
          - name: second
            host: 192.168.1.20
            port: 4001
            client_id: 40          # the first of the pool, and the size of the pool
            client_ids: 4
            max_lines: 200
            reserved_lines: 20
            trading_mode: LIVE
            accounts: [U7654321]
            tags: {team: options}  # of the runs of its stream; each value is a text

    The accounts are required. An account belongs to one login: otherwise two streams would write
    its values. And a request for a holding waits for the login that has its account.

    Args:
        path: The file.
        host, max_lines, reserved_lines: What counts for a login that does not say it.

    Raises:
        GatewaysFileError: The file is missing, is no regular file, or has a mistake: an unknown
            field, a value out of its bounds, a name, an address or an account twice, accounts of
            several trading modes. The message names file, line, column, cause and remedy.
    """
    return _Reader(Path(path), host, max_lines, reserved_lines).read()


def gateways_as_saved(
    path: Path, *, host: str, max_lines: int, reserved_lines: int
) -> tuple[Login, ...]:
    """Return what `load_gateways` returns, and read the file only if it was saved since.

    Raises:
        GatewaysFileError: As `load_gateways`.
    """
    try:
        found = os.stat(path)
    except OSError:
        state = (0, 0, 0)
    else:
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
    return _cached(path, state, host, max_lines, reserved_lines)


@lru_cache(maxsize=4)
def _cached(
    path: Path, _state: tuple[int, int, int], host: str, max_lines: int, reserved_lines: int
) -> tuple[Login, ...]:
    return load_gateways(path, host=host, max_lines=max_lines, reserved_lines=reserved_lines)


class _Reader(YamlFile):
    """Reads the logins of one file."""

    def __init__(self, path: Path, host: str, max_lines: int, reserved_lines: int) -> None:
        super().__init__(path, named_by=NAMED_BY, holds="gateways", error=GatewaysFileError)
        self._host = host
        self._max_lines = max_lines
        self._reserved_lines = reserved_lines
        self._seen: dict[tuple[str, ...], tuple[str, int]] = {}
        self._mode: tuple[TradingMode, str] | None = None

    def read(self) -> tuple[Login, ...]:
        top = self.mapping(self.compose(), ("gateways",), ("gateways",))
        nodes = self.items(top["gateways"], "gateways")
        if not nodes:
            self.fail(
                top["gateways"],
                "it names no gateway",
                f"Add one, or leave out {NAMED_BY}: the other settings then name the one gateway",
            )
        if len(nodes) > MOST_LOGINS:
            self.fail(
                nodes[MOST_LOGINS],
                f"it names more than {MOST_LOGINS:,} gateways",
                "Spread them over several lakes",
            )
        return tuple(self._login(node) for node in nodes)

    def _login(self, node: Node) -> Login:
        fields = self.mapping(node, _FIELDS, ("name", "port", "accounts"))
        name = self.text(fields["name"], "name")
        if not _NAME.fullmatch(name):
            self.fail(
                fields["name"],
                f"the name {name[:80]!r} cannot be used",
                "Use up to 64 letters, digits and _ . : - without two dots in a row",
            )
        self._once(fields["name"], ("name", name), name, f"there are two gateways {name!r}")
        host = None if absent(fields.get("host")) else self.text(fields["host"], "host")
        if host is not None and (len(host) > 255 or host.split() != [host]):
            self.fail(fields["host"], "the host is no address", "Write one such as 127.0.0.1")
        port = self._number(fields["port"], "port")
        numbers = {
            field: None if absent(fields.get(field)) else self._number(fields[field], field)
            for field in _BOUNDS
            if field != "port"
        }
        at = host or self._host
        self._once(
            fields["port"],
            ("address", _LOCAL.get(at.lower(), at.lower()), str(port)),
            name,
            f"the gateway at {at}:{port} is named twice; its client ids and lines are one login's",
        )
        self._check_lines(fields, numbers)
        accounts = self._accounts(fields["accounts"], name)
        return Login(
            name=name,
            host=host,
            port=port,
            **numbers,
            trading_mode=self._trading_mode(fields, accounts, name),
            accounts=accounts,
            tags=self._tags(fields.get("tags")),
        )

    def _tags(self, node: Node | None) -> tuple[tuple[str, str], ...]:
        found: dict[str, str] = {}
        for key, value in self.entries(node, "tags"):
            name = self.text(key, "the name of a tag")
            if not _TAG.fullmatch(name) or name.startswith(_RESERVED):
                self.fail(
                    key,
                    f"the tag {name[:80]!r} cannot be used",
                    f"Name it as Dagster allows, and not {', '.join(_RESERVED)}…",
                )
            if name in found:
                self.fail(key, f"the tag {name!r} is there twice", "Keep one of them")
            found[name] = self.text(value, f"the tag {name!r}")
        return tuple(found.items())

    def _number(self, node: Node, name: str) -> int:
        text = self.text(node, name)
        least, greatest = _BOUNDS[name]
        if not text.isdecimal() or len(text) > 10 or not least <= int(text) <= greatest:
            self.fail(
                node,
                f"{name} {text[:40]!r} is not usable",
                f"Write a whole number from {least} to {greatest}",
            )
        return int(text)

    def _check_lines(self, fields: dict[str, Node], numbers: dict[str, int | None]) -> None:
        most, reserved = numbers["max_lines"], numbers["reserved_lines"]
        most = self._max_lines if most is None else most
        reserved = self._reserved_lines if reserved is None else reserved
        if reserved >= most:
            self.fail(
                fields.get("reserved_lines") or fields.get("max_lines"),
                f"{reserved} reserved lines leave none of {most} to stream with",
                "Set reserved_lines below max_lines",
            )

    def _accounts(self, node: Node, name: str) -> tuple[str, ...]:
        accounts = []
        for one in self.items(node, "accounts"):
            account = self.text(one, "an account")
            if not _ACCOUNT.fullmatch(account):
                self.fail(one, f"{account[:80]!r} is no account id", "Write one such as U1234567")
            self._once(
                one, ("account", account), name, f"the account {account} belongs to two gateways"
            )
            accounts.append(account)
        if not accounts:
            self.fail(
                node,
                f"the gateway {name!r} has no account",
                "List all accounts that it serves; TWS shows them under Account",
            )
        return tuple(accounts)

    def _trading_mode(
        self, fields: dict[str, Node], accounts: tuple[str, ...], name: str
    ) -> TradingMode | None:
        given = None
        if not absent(fields.get("trading_mode")):
            text = self.text(fields["trading_mode"], "trading_mode")
            if text not in list(TradingMode):
                self.fail(
                    fields["trading_mode"],
                    f"the trading mode {text[:40]!r} is not known",
                    f"Use {', '.join(TradingMode)}",
                )
            given = TradingMode(text)
        for account in accounts:
            mode = trading_mode_of(account)
            if given is not None and mode is not given:
                self.fail(
                    fields["trading_mode"],
                    f"the account {account} is {mode} and not {given}",
                    "Correct the mode, or the account",
                )
            first = self._mode = self._mode or (mode, account)
            if mode is not first[0]:
                self.fail(
                    fields["accounts"],
                    f"the account {account} of {name!r} is {mode} and {first[1]} is {first[0]}; "
                    "one lake holds one trading mode",
                    "Give each trading mode its own file and its own POSITION_SYNC_LAKE",
                )
        return given

    def _once(self, node: Node, thing: tuple[str, ...], name: str, cause: str) -> None:
        """Fail if a thing was there before."""
        if thing in self._seen:
            other, line = self._seen[thing]
            self.fail(node, f"{cause} ({other!r} in line {line})", "Keep one of them")
        self._seen[thing] = (name, node.start_mark.line + 1)
