"""Settings: read from the environment or a `.env` file, with the prefix POSITION_SYNC_.

A variable with the prefix that is not a setting is reported, since a mistyped name has no effect.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, Self

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from position_sync_dagster.domain.update import LEASE_S
from position_sync_dagster.errors import SettingsError, shown
from position_sync_dagster.gateway_settings import (
    BatchSize,
    Count,
    Day,
    FilePath,
    Fraction,
    GatewaySettings,
    LakePath,
    Link,
    Rates,
    Seconds,
    SecretUrls,
    SecTypes,
    Severities,
)

PREFIX = "POSITION_SYNC_"

_SECRETS = ("alert_urls", "flex_token")
_CORRECT = "Correct it in the environment or in .env; .env.example lists each setting."


class Settings(GatewaySettings):
    """Every setting; its variable is the field's name in capitals with the prefix.

    `.env.example` describes each one; the descriptions here are those of the component.
    Read them with `load_settings()`, which turns a malformed value into a `SettingsError`.

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

    lake: LakePath = Field(
        "data/lake", min_length=1, description="Folder or s3:// URI of the tables."
    )
    # Write each commit to the disk: it survives a loss of power.
    fsync: bool = True
    strategies_file: FilePath | None = Field(
        None,
        description="YAML file of the active legs; unset: the table and the CLI decide.",
    )

    # Stream delayed data where the login lacks the live subscription.
    delayed_fallback: bool = False
    # 1 live, 2 frozen, 3 delayed, 4 delayed and frozen.
    market_data_type: int = Field(1, ge=1, le=4)
    # Number of monitored holdings whose profit is subscribed (PnLSingle); 0: none.
    pnl_subscriptions: Count = 2000
    # Smallest move of a monitored holding, in its profit subscription, that is queued: as a part of
    # its value, and in its currency; where the sign of the profit changes, the part alone decides.
    monitored_move_part: Fraction = 0.01
    monitored_move_amount: float = Field(25.0, ge=0, le=1e9)
    # Lines for the underlyings of held options, for computed greeks; unset: those that no leg
    # needs, 0: none.
    underlying_lines: int | None = Field(None, ge=0, le=100_000)
    # Interest rates per year for computed greeks; an option in another currency has none.
    interest_rates: Rates = (
        ("USD", 0.04), ("EUR", 0.02), ("GBP", 0.04), ("JPY", 0.005), ("CHF", 0.0), ("CAD", 0.025),
    )  # fmt: skip
    # Security types that are followed.
    sec_types: SecTypes = ("OPT", "FOP", "STK", "FUT")

    # Requests that one batch claims, at least.
    batch_size: BatchSize = 50
    # How often monitored holdings are valued, and streamed rows are committed.
    refresh_interval_s: Seconds = 180.0
    flush_interval_s: Seconds = 1.0

    # An owner of a login that is silent for longer counts as dead; it renews its lease every 4 s.
    session_lease_s: Seconds = 15.0

    # Exchange whose trading days daily_positions follows.
    calendar: str = Field("XNYS", max_length=255)
    # First day of daily_positions. Unset: the first of the ledger or a statement.
    daily_start: Day = None
    # Folder of the broker's statements, as XML files.
    flex_folder: FilePath = Path("data/flex")
    # Token of the Flex Web Service, a secret, and the Activity Flex query that it downloads.
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

    # What nobody has to set. Tests, and `doctor`, replace one in a copy (`model_copy(update=…)`).

    # Shortest time that a line is held, in seconds: a leg that comes and goes costs two requests
    # of the 50 that a gateway takes in a second.
    min_hold_s: ClassVar[float] = 5.0

    # A line that should tick and does not for so many seconds is requested again. A login whose
    # lines are all silent is probed after twice that.
    line_silence_s: ClassVar[float] = 30.0

    # An older last trade is not used, by the exchange's time: the quote has moved since.
    max_last_age_s: ClassVar[float] = 60.0

    # The part by which a line's value may differ from a newer value of the broker: theirs is up to
    # three minutes old. A line that differs by more is requested again.
    value_band: ClassVar[float] = 0.03

    # A streamed holding without any change has a row this often, a sign that it is watched.
    row_interval_s: ClassVar[float] = 60.0

    # A monitored holding without any change, or a streamed one that does not trade, has a row this
    # often: a thousand of them at `row_interval_s` would be most of the ledger.
    monitored_row_interval_s: ClassVar[float] = 3600.0

    # How often a gateway sends an account's values by itself. After two of these without a message
    # the account is subscribed again. Source: IB, "Account Updates" (every three minutes).
    account_interval_s: ClassVar[float] = 180.0

    # After so many silent seconds a download of an account is over, also without its end message.
    # The account is PARTIAL then, and is downloaded again later.
    account_quiet_s: ClassVar[float] = 5.0

    # How often all positions are listed again, to check the single messages.
    positions_interval_s: ClassVar[float] = 900.0

    # A list of positions that empties an account counts when a second list says the same so many
    # seconds later: gateways send empty lists after a restart.
    second_list_s: ClassVar[float] = 30.0

    # How often legs of active strategies without a free line are valued, in seconds.
    overflow_interval_s: ClassVar[float] = 30.0

    # Requests that one batch claims, at most: its rows are in memory, and must be written within
    # the lease.
    max_batch_size: ClassVar[int] = 5_000

    # A drain begins no further batch after this time: Dagster ends a tick after 60 s, and a lease
    # of requests lasts `lease_s`.
    drain_time_limit_s: ClassVar[float] = 20.0

    # So long a claimed request belongs to its worker, in seconds.
    lease_s: ClassVar[float] = LEASE_S

    # How often the owner of a login renews its session: a third of its lease may be lost.
    heartbeat_s: ClassVar[float] = 4.0

    # A stream run ends after so many seconds and a new one follows: its events stay few enough to
    # look at.
    rotate_after_s: ClassVar[float] = 21_600.0

    # Reconciliation calls an older row STALE: three rounds of the account's values have passed.
    stale_after_s: ClassVar[float] = 600.0

    # A check must have failed for so many seconds before that is sent: most mend themselves.
    alert_after_s: ClassVar[float] = 60.0

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        if self.reserved_lines >= self.max_lines:
            raise SettingsError(
                f"{PREFIX}RESERVED_LINES={self.reserved_lines} leaves none of the "
                f"{PREFIX}MAX_LINES={self.max_lines} lines for the stream.",
                remedy=f"Set {PREFIX}RESERVED_LINES below {PREFIX}MAX_LINES.",
            )
        if self.session_lease_s <= self.heartbeat_s:
            raise SettingsError(
                f"{PREFIX}SESSION_LEASE_S={self.session_lease_s:g} is not longer than the "
                f"{self.heartbeat_s:g} s after which it is renewed: a running owner would count as "
                "dead.",
                remedy=f"Set {PREFIX}SESSION_LEASE_S to 12 or more.",
            )
        return self

    def table(self, name: str) -> str:
        """Return the path of a table in the lake."""
        return f"{self.lake.rstrip('/')}/{name}"


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
            read_env_file(Path(file))
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        value = "(secret)" if name in _SECRETS else shown(first["input"])
        cause = first["msg"].removeprefix("Value error, ")
        raise SettingsError(
            f"{PREFIX}{name.upper()}={value} is not usable: {cause}.", remedy=_CORRECT
        ) from None


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
    for one in bindings:
        if one.error or (one.key is not None and one.value is None):
            text = one.original.string.lstrip("\n")
            number = one.original.line + len(one.original.string) - len(text)
            secret = any(name.upper() in text.upper() for name in _SECRETS)
            raise SettingsError(
                f"Line {number} of {path} cannot be read: "
                f"{'(secret)' if secret else shown(text.strip())}.",
                remedy="Write it as NAME=value, or begin it with #.",
            )
    return {one.key: one.value or "" for one in bindings if one.key is not None}


# Variables with the prefix that the package sets in its processes; they are not settings.
OWN_VARIABLES = frozenset({PREFIX + "LAUNCHED_FROM"})


def warnings_of(environ: Iterable[str], *, env_file: str | None = ".env") -> list[str]:
    """Return one line for each unknown setting of an environment and a `.env` file.

    >>> warnings_of(["POSITION_SYNC_MAX_LINE", "POSITION_SYNC_LAKE", "HOME"], env_file=None)
    ['POSITION_SYNC_MAX_LINE is not a setting and has no effect; is POSITION_SYNC_MAX_LINES meant?']
    """
    names = set(environ)
    if env_file is not None and os.path.isfile(env_file):
        with suppress(SettingsError):  # reading the settings themselves reports it
            names.update(read_env_file(Path(env_file)))
    known = [field.upper() for field in Settings.model_fields]
    warnings: list[str] = []
    for name in sorted(names):
        prefix, rest = name.upper()[: len(PREFIX)], name.upper()[len(PREFIX) :]
        if prefix == PREFIX and rest not in known and name not in OWN_VARIABLES:
            nearest = get_close_matches(rest, known, n=1)
            hint = f"is {PREFIX}{nearest[0]} meant?" if nearest else ".env.example lists each one."
            if isinstance(constant := getattr(Settings, rest.lower(), None), int | float):
                hint = f"it is always {constant:g}."
            warnings.append(f"{name} is not a setting and has no effect; {hint}")
    return warnings
