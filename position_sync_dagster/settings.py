"""Settings: read from the environment or a `.env` file, with the prefix POSITION_SYNC_.

A gateways file has those of several logins. Every number is finite and bounded: a time of 1e308
seconds would overflow. Functions named `_checked_…` and `_split_…` are validators of pydantic: the
text of a ValueError becomes the cause in a `SettingsError`.

How often something happens: `drain_interval_s`, `refresh_interval_s`, `flush_interval_s`; how long
something holds: `session_lease_s`, `history_days`. The queue's requests and the ledger are kept.

Those of money are here too, which the core does not read: a variable that is none of these is named
to a person as mistyped, and a gateways file is read once.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from dotenv.parser import Binding, parse_stream
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from position_sync_dagster.dagster_files import document
from position_sync_dagster.domain.line_allocation import most_underlyings
from position_sync_dagster.domain.position_update import TradingMode
from position_sync_dagster.errors import GatewaysFileError, SettingsError, shown
from position_sync_dagster.yaml_file import Part, Place, Text, YamlFile, saved_state

PREFIX = "POSITION_SYNC_"

_SECRETS = ("alert_urls", "flex_token")


DAY_S = 86_400

# Number of client ids in the pool, unless a gateways file sets another: an id is refused for a
# while after its connection dropped, and then the next one is tried.
CLIENT_IDS = 4

AnyPath = TypeVar("AnyPath", str, Path)


def _checked_path(value: AnyPath) -> AnyPath:
    """Return a path that names a file or a folder; no shell has replaced a `~` in it."""
    text = os.fspath(value)
    if isinstance(value, Path) and text.strip() in ("", "."):  # Python makes a dot of nothing
        raise ValueError("it names nothing: leave the setting out")
    if text.startswith("~"):
        raise ValueError("write the whole path: only a shell knows what ~ means")
    return value


# URIs of anything but a bucket or an absolute folder.
_NO_LAKE = re.compile(r"(?!s3a?://[^/]|file:///)[^/]*:/")


def _checked_lake(value: str) -> str:
    """Return the place of a lake: a folder, or a bucket of an object store."""
    if _NO_LAKE.match(value):
        raise ValueError("write a folder, or s3:// with a bucket")
    return _checked_path(value)


def _checked_link(value: str) -> str:
    """Return an address of a page whose port is a number."""
    _ = urlsplit(value).port  # raises ValueError otherwise
    return value


def _read_by(parse: Callable[[str], object]) -> BeforeValidator:
    """Return a validator that parses a text, and leaves any other value to pydantic."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part.strip().upper() for part in value.split(",") if part.strip())


def _split_rates(value: str) -> object:
    """Return the pairs of currency and rate in a text, which pydantic checks further."""
    if not all("=" in part for part in _listed(value)):
        raise ValueError("write rates such as USD=0.04,EUR=0.02")
    return tuple(tuple(map(str.strip, part.split("=", 1))) for part in _listed(value))


# The types of what an account can hold. Source: ib_async, `Contract.create`; BILL: IB's API.
SECURITY_TYPES = (
    "OPT", "FOP", "STK", "FUT", "IND", "CASH", "CFD", "BOND", "BILL", "FUND", "WAR", "IOPT",
    "CMDTY", "CRYPTO", "EVENT",
)  # fmt: skip


def _checked_day(value: str | None) -> str | None:
    """Return a day as YYYY-MM-DD; None, for no setting, if the text is empty."""
    if value is None or not value.strip():
        return None
    with suppress(ValueError):
        day = date.fromisoformat(value.strip())
        if 1990 <= day.year < 2100:  # a trading day that an exchange calendar knows
            return day.isoformat()
    raise ValueError("write a day such as 2026-01-02")


Seconds = Annotated[float, Field(gt=0, le=DAY_S)]
Port = Annotated[int, Field(ge=1, le=65_535)]
ClientId = Annotated[int, Field(ge=1, le=2**31 - 1)]
LineCount = Annotated[int, Field(ge=1, le=100_000)]
Count = Annotated[int, Field(ge=0, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"]
FilePath = Annotated[Path, AfterValidator(_checked_path)]
LakePath = Annotated[str, AfterValidator(_checked_lake)]
Day = Annotated[str | None, AfterValidator(_checked_day)]
Link = Annotated[str, AfterValidator(_checked_link)]
SecretUrls = Annotated[tuple[SecretStr, ...], NoDecode, _read_by(str.split)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Rate = Annotated[float, Field(ge=-0.2, le=2.0, allow_inf_nan=False)]
Rates = Annotated[tuple[tuple[Currency, Rate], ...], NoDecode, _read_by(_split_rates)]
# Holdings of a type by any other name would all be ignored.
SecType = Annotated[str, Field(pattern=f"^({'|'.join(SECURITY_TYPES)})$")]
SecTypes = Annotated[tuple[SecType, ...], Field(min_length=1), NoDecode, _read_by(_listed)]
Severity = Annotated[str, Field(pattern="^(WARN|ERROR)$")]
Severities = Annotated[tuple[Severity, ...], Field(min_length=1), NoDecode, _read_by(_listed)]


_LOCAL = {"localhost": "127.0.0.1", "::1": "127.0.0.1"}

# The tags of Dagster and of this package are excluded: runs are found by them.
_TAG_NAME = (
    r"\A(?!dagster/|\.dagster/|position_sync/)(?:[A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}\Z"
)


class LoginEntry(Part):
    """One login of the file; fields that it leaves out have the values of the settings.

    Attributes:
        name: Its name in tables and messages, the `gateway_id`.
        accounts: The accounts that its gateway serves, all of them and no other.
        tags: Names and values of the tags that the runs of its stream carry.
        flex_token: The token of the Flex Web Service of this login, a secret.
        flex_query_id: The queries that are downloaded with it, separated by commas.
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
    client_ids: int | None = Field(None, ge=1, le=32)
    max_lines: LineCount | None = None
    reserved_lines: Count | None = None
    trading_mode: TradingMode | None = Field(None, description=f"Use {', '.join(TradingMode)}")
    tags: dict[Annotated[str, Field(pattern=_TAG_NAME)], Text] = Field(
        {}, description="Name it as Dagster allows, and not dagster/… or position_sync/…"
    )
    flex_token: SecretStr | None = Field(
        None, max_length=255, description="Write the token as the Client Portal shows it"
    )
    flex_query_id: str | None = Field(
        None, max_length=255, description="Write query ids, separated by commas, as one text"
    )


class GatewaysPart(Part):
    """The whole file."""

    gateways: tuple[LoginEntry, ...] = Field(
        min_length=1, description="Add one, or leave out POSITION_SYNC_GATEWAYS_FILE"
    )


@lru_cache(maxsize=4)
def load_gateways(
    path: Path, whole: "Settings", saved: tuple[int, int, int]
) -> tuple["Settings", ...]:
    """Read the settings of the logins of a file, in its order; again only if it was saved since.

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
            flex_token: "…"        # a secret: of the statements of this login
            flex_query_id: 123456, 123457

    The accounts are required. An account belongs to one login: otherwise two streams would write
    its values. A request for a holding waits for the login that has its account.

    Args:
        path: The file.
        whole: The settings of which a login has what it leaves out.
        saved: The `saved_state` of the file: the answer for another one is not used again.

    Raises:
        GatewaysFileError: The file is missing, is no regular file, or has a mistake: an unknown
            field, a value out of its bounds, a name, an address or an account twice. The message
            names file, line, column, cause and remedy.
    """
    file = YamlFile(path, holds="gateways", error=GatewaysFileError)
    entries = file.parse(GatewaysPart, file.data).gateways

    logins = [whole._of(entry) for entry in entries]
    first_uses: dict[str, tuple[str, int]] = {}
    for number, login in enumerate(logins):
        place_of_login = ("gateways", number)
        for place_in_login, name in _unique_names(login).items():
            place = (*place_of_login, *place_in_login)
            if name in first_uses:
                first_login, line = first_uses[name]
                file.fail(
                    place,
                    f"{name} belongs to two gateways ({first_login!r} in line {line})",
                    "Keep one of them",
                )
            first_uses[name] = (login.gateway_id, file.line(place))

        if login.reserved_lines >= login.max_lines:
            file.fail(
                (*place_of_login, "max_lines"),
                f"{login.reserved_lines} reserved lines leave none of {login.max_lines} to stream "
                "with",
                "Set reserved_lines below max_lines",
            )
        entry = entries[number]
        if entry.flex_token is not None and entry.flex_query_id is None:
            file.fail(
                (*place_of_login, "flex_token"),
                "flex_token is there without flex_query_id",
                "Add the ids of the queries of this login, separated by commas",
            )
    return tuple(logins)


def _unique_names(login: "Settings") -> dict[Place, str]:
    """Return what only one login of a file may have, as words, by its place in the entry.

    The names of this machine are one address: `_LOCAL`.
    """
    host = login.gateway_host.lower()
    names: dict[Place, str] = {
        ("name",): f"the name {login.gateway_id!r}",
        ("port",): f"the address {_LOCAL.get(host, host)}:{login.gateway_port}",
    }
    for number, account in enumerate(login.accounts or ()):
        names["accounts", number] = f"the account {account}"
    return names


class Settings(BaseSettings):
    """Every setting; its variable is the field's name in capitals with the prefix.

    `.env.example` describes each one; the descriptions here are those of the component.
    Read them with `load_settings()`, which turns a malformed value into a `SettingsError`.

    With a gateways file, code that serves one login uses the settings of that login (`for_login`),
    and code that shows all of them loops over `logins`.

    >>> Settings(_env_file=None, gateway_port=4002).gateway_id
    '127.0.0.1:4002'
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

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

    lake: LakePath = Field(
        "data/lake", min_length=1, description="Folder or s3:// URI of the tables."
    )
    # Write each commit to the disk: it survives a loss of power.
    fsync: bool = True
    strategies_file: FilePath | None = Field(
        None, description="YAML file of the active legs; unset: the table and the CLI decide."
    )
    money: bool = Field(
        True,
        description="Whether statements, causes, results, risk and pages are there too; false: "
        "positions alone.",
    )

    # Stream delayed data where the login lacks the live subscription.
    delayed_fallback: bool = False
    # 1 live, 2 frozen, 3 delayed, 4 delayed and frozen.
    market_data_type: int = Field(1, ge=1, le=4)
    # Number of monitored holdings whose profit is subscribed (PnLSingle); 0: none.
    pnl_subscriptions: Count = 2000
    # Smallest move of a monitored holding, in its profit subscription, that is queued: as a part of
    # its value, and in its currency; where the sign of the profit changes, the part alone decides.
    monitored_move_part: float = Field(0.01, ge=0, le=1)
    monitored_move_amount: float = Field(25.0, ge=0, le=1e9)
    # Lines for the underlyings of held options, for computed greeks: at most so many, and at most a
    # quarter of the lines; 0: none.
    underlying_lines: int | None = Field(None, ge=0, le=100_000)
    # Interest rates per year for computed greeks; an option in another currency has none.
    interest_rates: Rates = (
        ("USD", 0.04), ("EUR", 0.02), ("GBP", 0.04), ("JPY", 0.005), ("CHF", 0.0), ("CAD", 0.025),
    )  # fmt: skip
    # Security types that are valued.
    sec_types: SecTypes = ("OPT", "FOP", "STK", "FUT")

    # auto: at most `MAX_BATCH_SIZE` (`sync/drain.py`), which does not bound a number.
    batch_size: BatchSize = Field(
        "auto",
        description="Requests that one batch claims at most; auto: a quarter of what waits, at "
        "least 50.",
    )
    drain_interval_s: float = Field(
        5.0, ge=5, le=DAY_S, description="Seconds between two drains; Dagster looks every 5 s."
    )
    # Runs of `close_day`, and the newest event and result of each asset and check, stay for good.
    history_days: int = Field(
        90, ge=1, le=3650, description="Days for which Dagster's runs, events and results are kept."
    )
    # How often monitored holdings are valued, and streamed rows are committed.
    refresh_interval_s: Seconds = 180.0
    flush_interval_s: Seconds = 1.0

    # An owner of a login that is silent for longer counts as dead; it renews its lease every 4 s
    # (`HEARTBEAT_S` of the stream).
    session_lease_s: float = Field(15.0, gt=4, le=DAY_S)

    # Exchange whose trading days daily_positions follows.
    calendar: str = Field("XNYS", max_length=255)
    # First day of daily_positions. Unset: the first of the ledger or a statement.
    daily_start: Day = None
    # Folder of the broker's statements, as XML files.
    flex_folder: FilePath = Path("data/flex")
    # Token of the Flex Web Service, a secret, and the Activity Flex queries that it downloads,
    # separated by commas. A login of a gateways file may have its own.
    flex_token: SecretStr | None = Field(None, max_length=255)
    flex_query_id: str | None = Field(None, max_length=255)

    alert_urls: SecretUrls = Field(
        (), description="Receivers of failed checks, as apprise URLs separated by spaces; secrets."
    )
    # Severities of failed checks that are sent.
    alert_severities: Severities = ("WARN", "ERROR")
    # Hours before the end of a live login's week at which a message announces it; 0: no message.
    login_notice_h: float = Field(24.0, ge=0, le=144)
    # Address of Dagster's pages, for links in messages and pages.
    ui_url: Link = "http://127.0.0.1:3000"

    # Of the settings of one login: its entry in the gateways file, and the settings of all logins.
    _login: LoginEntry | None = None
    _whole: "Self | None" = None

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        """Refuse settings that contradict each other; `load_gateways` checks a login of a file."""
        if self.reserved_lines >= self.max_lines:
            raise SettingsError(
                f"{PREFIX}RESERVED_LINES={self.reserved_lines} leaves none of the "
                f"{PREFIX}MAX_LINES={self.max_lines} lines for the stream.",
                remedy=f"Set {PREFIX}RESERVED_LINES below {PREFIX}MAX_LINES.",
            )
        return self

    def table(self, name: str) -> str:
        """Return the path of a table in the lake."""
        return f"{self.lake.rstrip('/')}/{name}"

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
        count = self._login.client_ids if self._login else None
        return tuple(range(first, first + (count or CLIENT_IDS)))

    @property
    def accounts(self) -> tuple[str, ...] | None:
        """The accounts that the login serves, as the gateways file says; None without a file."""
        return self._login.accounts if self._login else None

    @property
    def run_tags(self) -> dict[str, str]:
        """The tags that the runs of the login's stream carry; only a gateways file names any."""
        return self._login.tags if self._login else {}

    @property
    def most_underlyings(self) -> int:
        """The number of underlyings that may have a line for the greeks of their options."""
        share = most_underlyings(self.max_lines - self.reserved_lines)
        if self.underlying_lines is None:
            return share

        return min(share, self.underlying_lines)

    @property
    def logins(self) -> tuple["Settings", ...]:
        """The settings of each login, in the order of the gateways file as it is now.

        Raises:
            GatewaysFileError: The file cannot be read.
        """
        whole = self._whole or self  # those of one login know those of all
        path = whole.gateways_file
        if path is None:
            return (whole,)
        return load_gateways(path, whole, saved_state(path))

    def for_login(self, name: str | None) -> "Settings":
        """Return the settings of one login.

        Args:
            name: As the gateways file says; None for the only login, where there is no file.

        Raises:
            SettingsError: There is no such login, or the gateways file cannot be read.
        """
        if name is None and self.gateways_file is None:
            return self
        logins = {login.gateway_id: login for login in self.logins}
        if name in logins:
            return logins[name]
        raise SettingsError(
            f"There is no login {name!r}." if name else "No login was chosen.",
            remedy=f"Choose one of the logins: {', '.join(logins)}.",
        )

    def _of(self, login: LoginEntry) -> Self:
        """Return these settings with the values that a login sets: its `port` as `gateway_port`."""
        # The others are read of the entry itself: `_login`.
        entry = login.model_dump(
            exclude={"name", "accounts", "tags", "client_ids"}, exclude_none=True
        )
        update = {
            name if hasattr(self, name) else f"gateway_{name}": value
            for name, value in entry.items()
        }
        settings = self.model_copy(update=update)
        settings._login = login
        settings._whole = self
        return settings


def load_settings(**overrides: object) -> Settings:
    """Read the settings; keyword arguments take precedence over the environment.

    Raises:
        SettingsError: A value is malformed, or two contradict each other; the message names the
            variable and the remedy.

    >>> load_settings(gateway_port=4002).gateway_port
    4002
    """
    file = overrides.get("_env_file", ".env")
    try:
        if isinstance(file, str | Path) and os.path.exists(file):
            read_env_file(Path(file))  # for its errors: pydantic passes over what it cannot read
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        value = "(secret)" if name in _SECRETS else shown(first["input"])
        cause = first["msg"].removeprefix("Value error, ")
        raise SettingsError(
            f"{PREFIX}{name.upper()}={value} is not usable: {cause}.",
            remedy="Correct it in the environment or in .env; "
            f"{document('.env.example')} lists each setting.",
        ) from None


def state_of_sources() -> tuple[object, ...]:
    """Return a value that differs from the one before once the environment or `.env` has changed.

    As long as it is the same, a sensor keeps the settings that it has read: to read them takes
    2.4 ms, and it asks each 5 s.
    """
    env_file = Path(".env")
    # Other rights change neither its size nor its time.
    return frozenset(os.environ.items()), saved_state(env_file), os.access(env_file, os.R_OK)


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file with one `NAME=value` per line.

    Raises:
        SettingsError: The file, or one of its lines, cannot be read.
    """
    if not path.is_file():  # a pipe would be waited for
        raise SettingsError(f"{path} is not a regular file.", remedy="Write the settings into one.")
    try:
        with path.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"The settings file {path} cannot be read: {error}.",
            remedy="It is a text in UTF-8, one NAME=value a line: correct it, or its rights.",
        ) from error

    variables = {}
    for binding in bindings:
        is_unfinished = binding.key is not None and binding.value is None
        if binding.error or is_unfinished:
            raise SettingsError(
                f"Line {_line_of(binding)} of {path} cannot be read.",
                remedy="Write it as NAME=value, or begin it with #.",
            )
        if binding.key is not None:  # no comment and no blank line
            variables[binding.key] = binding.value or ""
    return variables


def _line_of(binding: Binding) -> int:
    """Return the line of a variable, whose text begins with the blank lines before it."""
    text = binding.original.string
    blank_lines = len(text) - len(text.lstrip("\n"))
    return binding.original.line + blank_lines
