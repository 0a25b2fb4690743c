"""The settings of one login, the gateways file of several, and the types that all settings share.

Every number is finite and bounded: a time of 1e308 seconds would overflow.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr
from pydantic_settings import BaseSettings, NoDecode

from position_sync_dagster.domain.update import TradingMode, trading_mode_of
from position_sync_dagster.errors import GatewaysFileError, SettingsError
from position_sync_dagster.yaml_file import Part, Place, Text, YamlFile, saved_state

DAY_S = 86_400
# Bytes of a path, and of each name in it. Linux takes 4096 and 255, macOS 1024 and 255.
LONGEST_PATH = 1024
LONGEST_NAME = 255

AnyPath = TypeVar("AnyPath", str, Path)


def _checked_path(value: AnyPath) -> AnyPath:
    text = os.fspath(value)
    if isinstance(value, Path) and text.strip() in ("", "."):  # Python makes a dot of nothing
        raise ValueError("it names nothing: leave the setting out")
    if text.startswith("~"):
        raise ValueError("write the whole path: only a shell knows what ~ means")
    inside = os.fsencode(text)
    if (
        b"\0" in inside
        or len(inside) > LONGEST_PATH
        or max(map(len, inside.split(b"/"))) > LONGEST_NAME
    ):
        raise ValueError(
            f"a path has at most {LONGEST_PATH} bytes, each name in it {LONGEST_NAME}, and no NUL"
        )
    return value


def lake_path_error(path: str) -> str | None:
    """Return why Delta Lake cannot keep a table at a path; None where it can.

    delta-rs makes a URL of the path: some characters cause a panic there, and others lead to
    another folder. Found by trying each (1.6.6).

    >>> lake_path_error("data/a[1]")
    "it contains '['"
    >>> lake_path_error("data/my lake #2")
    """
    found = _NOT_IN_LAKES.search(path)
    return None if found is None else f"it contains {found[0]!r}"


_NOT_IN_LAKES = re.compile(r"[\[\]^|\\\x00-\x1f\x7f\ud800-\udfff]|%[0-9A-Fa-f]{2}")


# URIs of anything but a bucket or an absolute folder.
_NO_LAKE = re.compile(r"(?!s3a?://[^/]|file:///)[^/]*:/")


def _checked_lake(value: str) -> str:
    if _NO_LAKE.match(value):
        raise ValueError("write a folder, or s3:// with a bucket")
    # A relative path has the characters of the working directory as well.
    wrong = lake_path_error(value if "://" in value else os.path.abspath(_checked_path(value)))
    if wrong is not None:
        raise ValueError(f"{wrong}, with which no table works: choose another folder")
    return _checked_path(value)


# Source: IB, "Flex Web Service" (version 3).
FLEX_URL = "https://ndcdyn.interactivebrokers.com/AccountManagement/FlexWebService"


def address_flaw(url: str) -> str | None:
    """Return why a token cannot be sent to an address, which is not shown; None where it can.

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
    if local or (parts.scheme == "https" and host):
        return None
    return "would send the token in the clear"


def _checked_link(value: str) -> str:
    _ = urlsplit(value).port  # a ValueError where it is no address
    return value


def _read_by(parse: Callable[[str], object]) -> BeforeValidator:
    """Return a validator that parses a text, and leaves any other value to pydantic."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part.strip().upper() for part in value.split(",") if part.strip())


def _split_rates(value: str) -> object:
    if not all("=" in part for part in _listed(value)):
        raise ValueError("write rates such as USD=0.04,EUR=0.02")
    return tuple(tuple(map(str.strip, part.split("=", 1))) for part in _listed(value))


# The types of what an account can hold. Source: ib_async, `Contract.create`; BILL: IB's API.
SECURITY_TYPES = (
    "OPT", "FOP", "STK", "FUT", "IND", "CASH", "CFD", "BOND", "BILL", "FUND", "WAR", "IOPT",
    "CMDTY", "CRYPTO", "EVENT",
)  # fmt: skip


def _checked_day(value: str | None) -> str | None:
    if value is None or not value.strip():
        return None
    with suppress(ValueError):
        day = date.fromisoformat(value.strip())
        if 1990 <= day.year < 2100:  # a trading day that an exchange calendar knows
            return day.isoformat()
    raise ValueError("write a day such as 2026-01-02")


Seconds = Annotated[float, Field(gt=0, le=DAY_S)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BatchSize = Annotated[int, Field(ge=1, le=10_000)]
Port = Annotated[int, Field(ge=1, le=65_535)]
ClientId = Annotated[int, Field(ge=1, le=2**31 - 1)]
PoolSize = Annotated[int, Field(ge=1, le=32)]
LineCount = Annotated[int, Field(ge=1, le=100_000)]
Count = Annotated[int, Field(ge=0, le=100_000)]
FilePath = Annotated[Path, AfterValidator(_checked_path)]
LakePath = Annotated[str, AfterValidator(_checked_lake)]
Day = Annotated[str | None, AfterValidator(_checked_day)]
Link = Annotated[str, AfterValidator(_checked_link)]
SecretUrls = Annotated[tuple[SecretStr, ...], NoDecode, _read_by(str.split)]
Rates = Annotated[
    tuple[
        tuple[
            Annotated[str, Field(pattern=r"^[A-Z]{3}$")],
            Annotated[float, Field(ge=-0.2, le=2.0, allow_inf_nan=False)],
        ],
        ...,
    ],
    NoDecode,
    _read_by(_split_rates),
]
# Holdings of a type by any other name would all be ignored.
SecTypes = Annotated[
    tuple[Annotated[str, Field(pattern=f"^({'|'.join(SECURITY_TYPES)})$")], ...],
    Field(min_length=1), NoDecode, _read_by(_listed),
]  # fmt: skip
Severities = Annotated[
    tuple[Annotated[str, Field(pattern="^(WARN|ERROR)$")], ...],
    Field(min_length=1), NoDecode, _read_by(_listed),
]  # fmt: skip


NAMED_BY = "POSITION_SYNC_GATEWAYS_FILE"

_LOCAL = {"localhost": "127.0.0.1", "::1": "127.0.0.1"}

# The tags of Dagster and of this package are excluded: runs are found by them.
_TAG = r"\A(?!dagster/|\.dagster/|position_sync/)(?:[A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}\Z"


class LoginEntry(Part):
    """One login of the file; fields that it leaves out have the values of the settings.

    Attributes:
        name: Its name in tables and messages, the `gateway_id`.
        accounts: The accounts that its gateway serves, all of them and no other.
        tags: Names and values of the tags that the runs of its stream carry.
    """

    # In the name of a partition Dagster reads "..." as a range.
    name: str = Field(
        pattern=r"\A[A-Za-z0-9](?:[A-Za-z0-9_:-]|\.(?!\.)){0,63}\Z",
        description="Use up to 64 letters, digits and _ . : - without two dots in a row",
    )
    port: Port
    accounts: tuple[Annotated[str, Field(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")], ...] = Field(
        min_length=1, description="List all accounts that it serves, such as U1234567"
    )
    host: Annotated[str, Field(pattern=r"\A\S{1,255}\Z")] | None = Field(
        None, description="Write an address such as 127.0.0.1"
    )
    client_id: ClientId | None = None
    client_ids: PoolSize | None = None
    max_lines: LineCount | None = None
    reserved_lines: Count | None = None
    trading_mode: TradingMode | None = Field(None, description=f"Use {', '.join(TradingMode)}")
    tags: Annotated[
        dict[Annotated[str, Field(pattern=_TAG)], Text],
        BeforeValidator(lambda value: {} if value is None else value),
    ] = Field({}, description="Name it as Dagster allows, and not dagster/… or position_sync/…")


class GatewaysPart(Part):
    """The whole file."""

    gateways: list[Any] = Field(
        min_length=1,
        description=f"Add one, or leave out {NAMED_BY}: the other settings then name one gateway",
    )


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
    its values. A request for a holding waits for the login that has its account.

    Args:
        path: The file.
        host, max_lines, reserved_lines: The values for a login that leaves them out.

    Raises:
        GatewaysFileError: The file is missing, is no regular file, or has a mistake: an unknown
            field, a value out of its bounds, a name, an address or an account twice, accounts of
            several trading modes. The message names file, line, column, cause and remedy.
    """
    file = YamlFile(Path(path), named_by=NAMED_BY, holds="gateways", error=GatewaysFileError)
    seen: dict[str, tuple[str, int]] = {}
    found: list[LoginEntry] = []
    for number, value in enumerate(file.parse(GatewaysPart, file.data).gateways):
        at: Place = ("gateways", number)
        login = file.parse(LoginEntry, value, at)
        address = (login.host or host).lower()
        things: dict[Place, str] = {
            ("name",): f"the name {login.name!r}",
            ("port",): f"the address {_LOCAL.get(address, address)}:{login.port}",
        }
        for place, account in enumerate(login.accounts):
            where: Place = ("accounts", place)
            things[where] = f"the account {account}"
        for where, thing in things.items():
            if thing in seen:
                other, line = seen[thing]
                cause = f"{thing} belongs to two gateways ({other!r} in line {line})"
                file.fail((*at, *where), cause, "Keep one of them")
            seen[thing] = (login.name, file.line((*at, *where)))
        most = max_lines if login.max_lines is None else login.max_lines
        reserved = reserved_lines if login.reserved_lines is None else login.reserved_lines
        if reserved >= most:
            file.fail(
                (*at, "max_lines"),
                f"{reserved} reserved lines leave none of {most} to stream with",
                "Set reserved_lines below max_lines",
            )
        found.append(login)
        _check_modes(file, at, login, found[0].accounts[0])
    return tuple(found)


def _check_modes(file: YamlFile, at: Place, login: LoginEntry, first: str) -> None:
    """Check that the accounts of a login have its mode, and that of the file's first account."""
    mode_of_first = trading_mode_of(first)
    for account in login.accounts:
        mode = trading_mode_of(account)
        if login.trading_mode not in (None, mode):
            file.fail(
                (*at, "trading_mode"),
                f"the account {account} is {mode} and not {login.trading_mode}",
                "Correct the mode, or the account",
            )
        if mode is not mode_of_first:
            file.fail(
                (*at, "accounts"),
                f"the account {account} of {login.name!r} is {mode} and {first} is "
                f"{mode_of_first}; one lake holds one trading mode",
                "Give each trading mode its own file and its own POSITION_SYNC_LAKE",
            )


@lru_cache(maxsize=4)
def _gateways_as_saved(
    path: Path, _state: tuple[int, int, int], host: str, max_lines: int, reserved_lines: int
) -> tuple[LoginEntry, ...]:
    """Return the logins of a file; read it again only if it was saved since."""
    return load_gateways(path, host=host, max_lines=max_lines, reserved_lines=reserved_lines)


class GatewaySettings(BaseSettings):
    """The address of a gateway and the limits of its login; one login without a gateways file.

    With a file, code that serves one login uses the settings of that login (`for_login`), and code
    that shows all of them loops over `logins`.
    """

    gateways_file: FilePath | None = Field(
        None,
        description="YAML file of several logins; unset: gateway_host and gateway_port name one.",
    )
    gateway_host: str = Field(
        "127.0.0.1",
        min_length=1,
        max_length=255,
        description="Address of the gateway; an address, not a name (trusted IPs).",
    )
    gateway_port: Port = Field(
        7497, description="API port: TWS 7496 live, 7497 paper; Gateway 4001 live, 4002 paper."
    )
    gateway_client_id: ClientId = Field(
        17, description="First client id of the pool; 0 is refused."
    )
    # LIVE, PAPER or SIMULATED: refuse accounts of any other mode. Unset: accept any one mode.
    trading_mode: TradingMode | None = None

    # Market data lines that the login has, and those of them that are left to other programs.
    max_lines: LineCount = 100
    reserved_lines: Count = 5

    # Number of client ids in the pool: an id is refused for a while after its connection dropped,
    # and then the next one is tried. A gateways file may set another number.
    gateway_client_ids: ClassVar[int] = 4

    # Longest wait for one answer of the gateway, in seconds: one that is busy after its start
    # takes up to ten.
    gateway_timeout_s: ClassVar[float] = 15.0

    _login: LoginEntry | None = PrivateAttr(None)
    _whole: "Self | None" = PrivateAttr(None)

    @property
    def gateway_id(self) -> str:
        """The name of the login in the tables: that of the gateways file, or else "host:port".

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
        return self._login.tags if self._login is not None else {}

    @property
    def logins(self) -> tuple[Self, ...]:
        """The settings of each login, in the order of the gateways file as it is now.

        Raises:
            GatewaysFileError: The file cannot be read.
        """
        whole = self._whole or self
        if whole.gateways_file is None:
            return (whole,)
        listed = _gateways_as_saved(
            whole.gateways_file,
            saved_state(whole.gateways_file),
            whole.gateway_host,
            whole.max_lines,
            whole.reserved_lines,
        )
        return tuple(whole._of(login) for login in listed)

    def for_login(self, name: str | None) -> Self:
        """Return the settings of one login.

        Args:
            name: As the gateways file says; None for the only login, where there is no file.

        Raises:
            SettingsError: There is no such login, or the gateways file cannot be read.
        """
        if self.gateways_file is None:
            if name in (None, self.gateway_id):
                return self
            raise SettingsError(
                f"There is no login {name!r}: no gateways file is configured.",
                remedy="Set POSITION_SYNC_GATEWAYS_FILE, or name no login.",
            )
        logins = {login.gateway_id: login for login in self.logins}
        if name in logins:
            return logins[name]
        raise SettingsError(
            f"{self.gateways_file} names no login {name!r}." if name else "No login was chosen.",
            remedy=f"Choose one of its logins: {', '.join(logins)}.",
        )

    def _of(self, login: LoginEntry) -> Self:
        """Return these settings with the values that a login sets."""
        given = login.model_dump(exclude={"name", "accounts", "tags"}, exclude_none=True)
        found = self.model_copy(
            update={
                name if hasattr(self, name) else f"gateway_{name}": value
                for name, value in given.items()
            }
        )
        found._login, found._whole = login, self
        return found
