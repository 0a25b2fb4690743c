"""The settings of one login, and the logins that a gateways file names."""

from typing import TYPE_CHECKING, Self

from pydantic import Field, PrivateAttr
from pydantic_settings import BaseSettings

from position_sync_dagster.domain.update import TradingMode
from position_sync_dagster.errors import SettingsError
from position_sync_dagster.setting_types import FilePath, Seconds

if TYPE_CHECKING:
    from position_sync_dagster.gateways_file import Login


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

    _login: "Login | None" = PrivateAttr(None)
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
        from position_sync_dagster.gateways_file import gateways_as_saved

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

    def _of(self, login: "Login") -> Self:
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
