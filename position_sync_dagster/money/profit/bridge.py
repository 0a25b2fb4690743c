"""The profit of the day of an account, and the parts that it is made of; pure.

One bridge of one moment: today = open + closed + cash + unexplained, to the cent. The moment is the
last one at which the account's own number and those of its holdings are both known: that of the
row of `account_values`, which has both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import seconds_since
from position_sync_dagster.domain.leg import few
from position_sync_dagster.money.cents import cents

# How many holdings of which something is not known are named.
MOST_UNEXPLAINED = 10

# The broker's profit of the day leaves commissions and income out (TWS Users' Guide, "Profit and
# Loss"): what they brought is in neither side.
CASH = 0.0


class Earned(NamedTuple):
    """What a holding earned today.

    Attributes:
        name: The contract as a trader writes it.
        profit: In the base currency of the account; None: not known.
        closed_at: When it was gone; None: it is open.
    """

    name: str
    profit: float | None
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """The profit of the day of an account in its base currency: account = the sum of the parts.

    Attributes:
        account: The broker's own number.
        open: What is open earned, as far as it is known.
        closed: What closed today earned since the close before, as far as it is known.
        cash: Fees and cash: 0, since the broker's number leaves them out.
        unexplained: The rest: what is not known, and what the broker counts besides; null without
            `account`.
        open_unknown: The holdings that `open` leaves out.
        closed_unknown: The holdings that `closed` leaves out.
        reasons: What is in each part, by its name; that of `unexplained` names what is not known.
        at: The moment of all parts.
        age_s: The age of the broker's number.
    """

    account: float | None
    open: float
    closed: float
    cash: float
    unexplained: float | None
    open_unknown: int
    closed_unknown: int
    reasons: dict[str, str]
    at: datetime
    age_s: float | None


class Earnings(NamedTuple):
    """What holdings earned today.

    Attributes:
        known: The sum of what is known.
        unknown: The names of those of which it is not known.
    """

    known: float
    unknown: Sequence[str]

    @classmethod
    def of(cls, holdings: Sequence[Earned]) -> "Earnings":
        """Return what some holdings earned together."""
        known = sum(holding.profit for holding in holdings if holding.profit is not None)
        return cls(known, [holding.name for holding in holdings if holding.profit is None])


def bridge(
    account: AccountSummary, opened: Earnings, closed: Sequence[Earned], now: datetime
) -> Today:
    """Return the profit of the day of an account in its parts.

    Args:
        account: The newest values of the account.
        opened: What is open now.
        closed: What closed today.
        now: The present moment.
    """
    # Rows of earlier releases have no sum of their moment: that of now is the nearest.
    open_sum, open_unknown, at = account.open_pnl, account.open_unknown, account.timestamp
    if open_sum is None or open_unknown is None:
        open_sum, open_unknown, at = opened.known, len(opened.unknown), now

    closed_by_then = [leg for leg in closed if leg.closed_at is None or leg.closed_at <= at]
    gone = Earnings.of(closed_by_then)
    open_part = cents(open_sum)
    closed_part = cents(gone.known)
    today = unexplained = None
    if account.daily_pnl is not None:
        today = cents(account.daily_pnl)
        unexplained = cents(today - open_part - closed_part - CASH)

    unknown = [f"{name} (open)" for name in opened.unknown]
    unknown += [f"{name} (closed)" for name in gone.unknown]
    return Today(
        account=today,
        open=open_part,
        closed=closed_part,
        cash=CASH,
        unexplained=unexplained,
        open_unknown=open_unknown,
        closed_unknown=len(gone.unknown),
        reasons=_reasons(open_unknown, len(closed_by_then), unknown),
        at=at,
        age_s=seconds_since(account.pnl_received_at, now),
    )


def _reasons(open_unknown: int, closed: int, unknown: Sequence[str]) -> dict[str, str]:
    left_out = f", without {open_unknown} of which it is not known" if open_unknown else ""
    besides = "what the broker counts from other prices, or besides the holdings"
    named = f"not known is the profit of the day of {few(unknown, MOST_UNEXPLAINED)}"
    return {
        "open": f"the profit of the day of what is open{left_out}",
        "closed": f"what {closed} holdings that are gone earned since the close before",
        "cash": "the broker's profit of the day leaves commissions and income out",
        "unexplained": named if unknown else besides,
    }
