"""The settings of one login, the gateways file of several, and the types that all settings share.

Every number is finite and bounded: 1e308 seconds would end in no error but an overflow.
"""

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr
from pydantic_settings import BaseSettings, NoDecode
from yaml.nodes import Node

from position_sync_dagster.domain.update import TradingMode, trading_mode_of
from position_sync_dagster.errors import GatewaysFileError, SettingsError
from position_sync_dagster.yaml_file import YamlFile, absent

DAY_S = 86_400
LONGEST_PATH = 1024
LONGEST_NAME = 255
"""Bytes of a path, and of each name in it. Linux takes 4096 and 255, macOS 1024 and 255."""

AnyPath = TypeVar("AnyPath", str, Path)


def _checked_path(value: AnyPath) -> AnyPath:
    text = os.fspath(value)
    if "\0" in text:
        raise ValueError("a path has no NUL character")
    if len(os.fsencode(text)) > LONGEST_PATH:
        raise ValueError(f"a path has at most {LONGEST_PATH} bytes")
    if any(len(os.fsencode(name)) > LONGEST_NAME for name in text.split("/")):
        raise ValueError(f"each name in a path has at most {LONGEST_NAME} bytes")
    return value


def lake_path_error(path: str) -> str | None:
    """Return why Delta Lake cannot keep a table at a path; None where it can.

    delta-rs makes a URL of the path: some characters end in a panic there, and others name another
    folder than the one that was meant. Found by trying each (1.6.6).

    >>> lake_path_error("data/a[1]")
    "it contains '['"
    >>> lake_path_error("data/my lake #2")
    """
    found = _NOT_IN_LAKES.search(path)
    return None if found is None else f"it contains {found[0]!r}"


_NOT_IN_LAKES = re.compile(r"[\[\]^|\\\x00-\x1f\x7f\ud800-\udfff]|%[0-9A-Fa-f]{2}")


def _checked_lake(value: str) -> str:
    # A relative path has the characters of the working directory as well.
    wrong = lake_path_error(value if "://" in value else os.path.abspath(_checked_path(value)))
    if wrong is not None:
        raise ValueError(f"{wrong}, with which no table works: choose another folder")
    return _checked_path(value)


def address_flaw(url: str) -> str | None:
    """Return why a token cannot be sent to an address; None where it can. The address is not shown.

    >>> address_flaw("https://broker.example/flex")
    >>> address_flaw("https://ann:secret@broker.example/flex")
    'holds a user name or a password, which would be shown'
    >>> address_flaw("http://broker.example/flex")
    'would send the token in the clear'
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "is no address"
    if "@" in parts.netloc:
        return "holds a user name or a password, which would be shown"
    local = parts.scheme == "http" and host in ("127.0.0.1", "localhost", "::1")
    return (
        None
        if local or (parts.scheme == "https" and host)
        else ("would send the token in the clear")
    )


def _checked_address(value: str) -> str:
    flaw = address_flaw(value)
    if flaw is not None:
        raise ValueError(f"it {flaw}")
    return value


def _split_urls(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else value


def _split_severities(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = tuple(part.strip().upper() for part in value.split(",") if part.strip())
    if not names or not {"WARN", "ERROR"}.issuperset(names):
        raise ValueError("write WARN,ERROR or one of them")
    return names


def _split_types(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if len(text) > LONGEST_NAME:
        raise ValueError(f"it has more than {LONGEST_NAME} characters")
    if text.startswith("["):
        return json.loads(text)
    types = tuple(part.strip() for part in text.split(",") if part.strip())
    if not types:
        raise ValueError("name at least one type, such as OPT,FOP")
    return types


def _checked_day(value: str | None) -> str | None:
    if value is None or not value.strip():
        return None
    with suppress(ValueError):
        day = date.fromisoformat(value.strip())
        if 1990 <= day.year < 2100:  # a trading day that an exchange calendar knows
            return day.isoformat()
    raise ValueError("write a day such as 2026-01-02")


Seconds = Annotated[float, Field(gt=0, le=DAY_S)]
FilePath = Annotated[Path, AfterValidator(_checked_path)]
LakePath = Annotated[str, AfterValidator(_checked_lake)]
Day = Annotated[str | None, AfterValidator(_checked_day)]
Address = Annotated[str, AfterValidator(_checked_address)]
SecTypes = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_types)]
SecretUrls = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_urls)]
Severities = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_severities)]


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
class LoginEntry:
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
) -> tuple[LoginEntry, ...]:
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
) -> tuple[LoginEntry, ...]:
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
) -> tuple[LoginEntry, ...]:
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

    def read(self) -> tuple[LoginEntry, ...]:
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

    def _login(self, node: Node) -> LoginEntry:
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
        return LoginEntry(
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


class GatewaySettings(BaseSettings):
    """Where a gateway is, and what its login has; without a gateways file there is one login.

    With a file, code that serves one login takes the settings of that login (`for_login`), and code
    that shows all of them goes over `logins`.
    """

    gateways_file: FilePath | None = Field(
        None,
        description="YAML file of several logins; unset: the settings below name the one gateway.",
    )
    gateway_host: str = Field(
        "127.0.0.1",
        min_length=1,
        max_length=255,
        description="Address of the gateway; an address, not a name (trusted IPs).",
    )
    gateway_port: int = Field(
        7497,
        ge=1,
        le=65535,
        description="API port: TWS 7496 live, 7497 paper; Gateway 4001 live, 4002 paper.",
    )
    gateway_client_id: int = Field(
        17, ge=1, le=2**31 - 1, description="First client id of the pool; 0 is refused."
    )
    gateway_client_ids: int = Field(4, ge=1, le=32, description="Number of client ids in the pool.")
    gateway_timeout_s: Seconds = Field(
        15.0, description="Longest wait for one answer of the gateway."
    )
    trading_mode: TradingMode | None = Field(
        None,
        description="LIVE, PAPER or SIMULATED: refuse accounts of any other mode. Unset: accept "
        "the mode that is found.",
    )

    max_lines: int = Field(
        100, ge=1, le=100_000, description="Market data lines that the login has."
    )
    reserved_lines: int = Field(
        5, ge=0, le=100_000, description="Of these, lines that are always left to other programs."
    )

    _login: "LoginEntry | None" = PrivateAttr(None)
    _whole: "Self | None" = PrivateAttr(None)

    @property
    def gateway_id(self) -> str:
        """The name of the login in the tables: of the gateways file, or else "host:port".

        Raises:
            SettingsError: There are several logins, and these settings are of none of them.
        """
        if self._login is not None:
            return self._login.name
        if self.gateways_file is not None:
            raise SettingsError(
                f"{self.gateways_file} names the logins, and none of them was chosen.",
                remedy="Choose one with `settings.for_login(name)`.",
            )
        return self.gateway_address

    @property
    def gateway_address(self) -> str:
        """The address of the login's gateway: "host:port"."""
        return f"{self.gateway_host}:{self.gateway_port}"

    @property
    def client_id_pool(self) -> tuple[int, ...]:
        """The client ids that may be used, in order."""
        first = self.gateway_client_id
        return tuple(range(first, first + self.gateway_client_ids))

    @property
    def accounts(self) -> tuple[str, ...] | None:
        """The accounts that the login serves, as the gateways file says; None without a file."""
        return self._login.accounts if self._login is not None else None

    @property
    def run_tags(self) -> dict[str, str]:
        """The tags that the runs of the login's stream carry; only a gateways file names any."""
        return dict(self._login.tags) if self._login is not None else {}

    @property
    def logins(self) -> tuple[Self, ...]:
        """The settings of each login, in the order of the gateways file as it is now.

        Raises:
            GatewaysFileError: The file cannot be read.
        """
        whole = self._whole or self
        if whole.gateways_file is None:
            return (whole,)

        listed = gateways_as_saved(
            whole.gateways_file,
            host=whole.gateway_host,
            max_lines=whole.max_lines,
            reserved_lines=whole.reserved_lines,
        )
        return tuple(whole._of(login) for login in listed)

    def for_login(self, name: str | None) -> Self:
        """Return the settings of one login.

        Args:
            name: As the gateways file says; None for the only login, where there is no file.

        Raises:
            SettingsError: There is no such login, or the gateways file cannot be read.
        """
        logins = self.logins
        if self.gateways_file is None and name in (None, self.gateway_id):
            return logins[0]
        for login in logins:
            if login.gateway_id == name:
                return login
        if self.gateways_file is None:
            raise SettingsError(
                f"There is no login {name!r}: no gateways file is configured.",
                remedy="Set POSITION_SYNC_GATEWAYS_FILE, or name no login.",
            )
        known = ", ".join(login.gateway_id for login in logins)
        raise SettingsError(
            f"{self.gateways_file} names no login {name!r}." if name else "No login was chosen.",
            remedy=f"Choose one of its logins: {known}.",
        )

    def _of(self, login: "LoginEntry") -> Self:
        """Return these settings with those of a login in the place of their own."""
        given = {
            "gateway_host": login.host,
            "gateway_port": login.port,
            "gateway_client_id": login.client_id,
            "gateway_client_ids": login.client_ids,
            "max_lines": login.max_lines,
            "reserved_lines": login.reserved_lines,
            "trading_mode": login.trading_mode,
        }
        found = self.model_copy(
            update={name: value for name, value in given.items() if value is not None}
        )
        found._login, found._whole = login, self
        return found
