"""Settings from the environment or a `.env` file, prefix POSITION_SYNC_."""

import json
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from position_sync_dagster.domain.update import TradingMode
from position_sync_dagster.errors import SettingsError

PREFIX = "POSITION_SYNC_"
_CORRECT = "Correct it in the environment or in .env; .env.example lists each setting."


class Settings(BaseSettings):
    """All that can be set; each field's variable is its name in capitals with the prefix.

    Read them with `load_settings()`, which turns a malformed value into a `SettingsError`.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True
    )

    lake: str = Field("data/lake", description="Folder or s3:// URI of the tables.")
    fsync: bool = Field(True, description="An acknowledged commit outlives a loss of power.")
    strategies_file: Path | None = Field(
        None, description="YAML file that the registry is kept equal to; none: the tables rule."
    )

    gateway_host: str = Field("127.0.0.1", description="An address, not a name (trusted IPs).")
    gateway_port: int = Field(
        7497, ge=1, le=65535, description="TWS live 7496, paper 7497; Gateway live 4001, paper 4002"
    )
    gateway_client_id: int = Field(
        17, ge=1, le=2**31 - 1, description="First of the pool of client ids; 0 is refused."
    )
    gateway_client_ids: int = Field(4, ge=1, le=32, description="Size of the pool of client ids.")
    gateway_timeout_s: float = Field(15.0, gt=0, description="Bound of one answer.")
    trading_mode: TradingMode | None = Field(
        None, description="LIVE, PAPER or SIMULATED: refuse any other account. None: as found."
    )

    max_lines: int = Field(100, ge=1, description="Market data lines of the login.")
    reserved_lines: int = Field(5, ge=0, description="Lines always left to other programs.")
    min_hold_s: float = Field(5.0, ge=0, description="A line is cancelled no sooner.")
    delayed_fallback: bool = Field(
        False, description="Stream delayed data where the login lacks the live subscription."
    )
    market_data_type: int = Field(1, ge=1, le=4, description="1 live, 2 frozen, 3/4 delayed.")
    max_mark_age_s: float = Field(
        120.0,
        gt=0,
        description="An older mark is not used, nor a quote when no line ticks so long.",
    )
    sec_types: Annotated[tuple[str, ...], NoDecode] = Field(
        ("OPT", "FOP", "STK", "FUT"), description="As OPT,FOP or as JSON. Others are left alone."
    )

    batch_size: int = Field(50, ge=1, description="Requests claimed at once.")
    drain_time_limit_s: float = Field(30.0, gt=0, description="Bound of one drain run.")
    overflow_interval_s: float = Field(
        30.0, gt=0, description="Active legs without a line are valued again."
    )
    refresh_interval_s: float = Field(180.0, gt=0, description="Monitored legs are valued again.")
    flush_interval_s: float = Field(1.0, gt=0, description="Streamed rows are committed.")
    lease_s: float = Field(45.0, gt=0, description="A claimed request's lease.")
    max_attempts: int = Field(5, ge=1, description="Failures until a request is FAILED.")
    retry_delay_s: float = Field(5.0, gt=0, description="Delay after a failure; it doubles.")
    max_retry_delay_s: float = Field(300.0, gt=0, description="Its upper bound.")

    heartbeat_s: float = Field(4.0, gt=0, description="The gateway owner renews its session.")
    session_lease_s: float = Field(15.0, gt=0, description="A silent owner is dead after this.")
    rotate_after_s: float = Field(21600.0, gt=0, description="A stream run ends and is followed.")

    keep_runs_days: int = Field(14, ge=1, description="Dagster forgets older runs; rows stay.")

    calendar: str = Field("XNYS", description="Exchange whose days daily_positions follows.")
    daily_start: str = Field("2026-01-02", description="First day of daily_positions.")
    stale_after_s: float = Field(600.0, gt=0, description="Reconciliation calls a row STALE.")

    @field_validator("sec_types", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        text = value.strip()
        if text.startswith("["):
            return json.loads(text)
        listed = tuple(part.strip() for part in text.split(",") if part.strip())
        if not listed:
            raise ValueError("name at least one type, such as OPT,FOP")
        return listed

    @field_validator("daily_start")
    @classmethod
    def _day(cls, value: str) -> str:
        try:
            return date.fromisoformat(value.strip()).isoformat()
        except ValueError:
            raise ValueError("write a day such as 2026-01-02") from None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.reserved_lines >= self.max_lines:
            raise SettingsError(
                f"{PREFIX}RESERVED_LINES={self.reserved_lines} leaves none of "
                f"{PREFIX}MAX_LINES={self.max_lines} lines to stream with.",
                remedy=f"Set {PREFIX}RESERVED_LINES below {PREFIX}MAX_LINES.",
            )
        if self.heartbeat_s >= self.session_lease_s:
            raise SettingsError(
                f"{PREFIX}HEARTBEAT_S={self.heartbeat_s:g} is no shorter than "
                f"{PREFIX}SESSION_LEASE_S={self.session_lease_s:g}: a living owner would be taken "
                "for dead.",
                remedy=f"Set {PREFIX}HEARTBEAT_S to a third of {PREFIX}SESSION_LEASE_S or less.",
            )
        return self

    @property
    def gateway_id(self) -> str:
        """Name the login's gateway: "host:port"."""
        return f"{self.gateway_host}:{self.gateway_port}"

    @cached_property
    def client_id_pool(self) -> tuple[int, ...]:
        """Give the client ids that may be used, in order."""
        first = self.gateway_client_id
        return tuple(range(first, first + self.gateway_client_ids))

    def table(self, name: str) -> str:
        """Give the path of a table in the lake."""
        return f"{self.lake.rstrip('/')}/{name}"


def load_settings(**overrides: object) -> Settings:
    """Read the settings; keyword arguments win over the environment.

    Raises:
        SettingsError: A value is malformed, or two contradict each other; the message names
            the variable and the remedy.

    >>> load_settings(gateway_port=4002).gateway_port
    4002
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper() if first["loc"] else PREFIX.rstrip("_")
        raise SettingsError(
            f"{name}={first.get('input')!r} is not usable: "
            f"{first['msg'].removeprefix('Value error, ')}.",
            remedy=_CORRECT,
        ) from None
    except SourceError as error:
        raise SettingsError(f"The settings cannot be read: {error}.", remedy=_CORRECT) from None
