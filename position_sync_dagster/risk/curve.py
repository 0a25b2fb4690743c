"""The curve of a payoff for a picture: the profit today and at the next expiry, over the price."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from position_sync_dagster.risk.payoff import Payoff
from position_sync_dagster.risk.priced_legs import SIZE, PricedLegs
from position_sync_dagster.risk.scenario_file import Point
from position_sync_dagster.risk.scenarios import changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The profit since the legs were opened, over the price of one underlying.

    Attributes:
        spot: The price now.
        prices: The prices of the underlying.
        today: The profit at each of them now; None: a leg has no price of the model.
        at_expiry: The profit at the next expiry.
    """

    spot: float
    prices: Sequence[float]
    today: Sequence[float] | None
    at_expiry: Sequence[float]
    break_evens: Sequence[float]


# The moves in percent between which a curve is drawn.
MOVES = tuple(range(-30, 31))


def curve_of(payoff: Payoff, legs: PricedLegs) -> Curve | None:
    """Return the curve of a payoff; None where the payoff or the price is not known.

    Args:
        payoff: One of `payoffs(legs)`.
        legs: Parts of holdings.
    """
    own = legs.where(
        (pl.col("strategy_id") == payoff.strategy)
        & (pl.col("account") == payoff.account)
        & (pl.col("under") == payoff.under)
        & (pl.col("currency") == payoff.currency)
    )
    spot = own.parts.get_column("spot").median()
    gained = own.parts.get_column("unrealized_pnl").to_numpy()
    if payoff.profit_at is None or not isinstance(spot, float):
        return None

    strikes = [100 * (corner.price / spot - 1) for corner in payoff.corners]
    within = [move for move in strikes if MOVES[0] <= move <= MOVES[-1]]
    moves = sorted({*MOVES, *within})
    prices = [spot * (1 + move / 100) for move in moves]
    today = None
    if not own.left_out() and not np.isnan(gained).any():
        changed = changes(own, [Point(spot=move) for move in moves])
        sizes = own.parts.select(SIZE).to_series().to_numpy()
        today = (gained.sum() + sizes @ changed).tolist()
    return Curve(
        spot=spot,
        prices=prices,
        today=today,
        at_expiry=payoff.profit_at(np.array(prices)).tolist(),
        break_evens=payoff.break_evens or (),
    )
