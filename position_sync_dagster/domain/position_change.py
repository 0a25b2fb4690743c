"""A change of a quantity, and the holding that it is about."""

from dataclasses import dataclass
from datetime import date, datetime

from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.instrument import OPTION_TYPES, Right


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedHolding:
    """The holding that a row of `position_changes` or of `closures` is about.

    Attributes:
        account: IB account.
        conid: IB's contract id.
        symbol: Symbol of the underlying, as IB writes it.
        sec_type: IB's security type.
        right: CALL or PUT; null of what is no option.
        strike: Strike of an option. Unit: as quoted.
        expiry: Expiry of an option or a future.
    """

    change_id: str
    account: str
    conid: int
    symbol: str
    sec_type: str
    right: Right | None
    strike: float | None
    expiry: date | None

    @property
    def is_option(self) -> bool:
        """Return whether it is an option, on whatever underlying, and which one is known."""
        return self.sec_type in OPTION_TYPES and None not in (self.right, self.strike)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionChange(ChangedHolding):
    """A change of a quantity, as the owner of the login saw it: a row of `position_changes`.

    Attributes:
        change_id: Id of the change; the same if it is recorded again.
        multiplier: Units of the underlying in one contract.
        currency: ISO code of the currency.
        before: Signed quantity before. Unit: contracts or shares.
        after: Signed quantity after. Unit: contracts or shares.
        average_cost: Average cost of one contract or share before. Unit: `currency`.
        market_price: Price of one unit by the broker's last value before; null where it sent none.
            Unit: `currency`, also of what is quoted in cents.
        daily_pnl: Profit of the day in the message that had this value; null where it was of an
            earlier day than the change, in New York, or where it is not known. Unit: `currency`.
        since: Until when the broker is known to have confirmed `before` (UTC).
        seen_at: When the new quantity was received (UTC).
        gateway_id: The login that saw it.
        snapshot_id: The newest list of positions that was requested before the row came.
        run_id: The Dagster run that wrote the row.
    """

    multiplier: float
    currency: str
    before: float
    after: float
    average_cost: float | None
    market_price: float | None
    since: datetime | None
    seen_at: datetime
    gateway_id: str
    snapshot_id: str
    run_id: str | None = None
    daily_pnl: float | None = None

    @property
    def key(self) -> Key:
        """The holding's (account, conid)."""
        return (self.account, self.conid)

    @property
    def by(self) -> float:
        """Return by how much the quantity changed, with a sign."""
        return self.after - self.before

    @property
    def closed(self) -> float:
        """Return the part of `before` that is gone, with its sign; 0 if nothing was closed."""
        if self.before * self.after < 0:
            return self.before
        if abs(self.after) < abs(self.before):
            return self.before - self.after

        return 0.0
