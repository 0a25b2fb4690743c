"""The price rule: which price of a quote values a position; pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from position_sync_dagster.domain.pricing.quote import Quote
from position_sync_dagster.domain.update import PriceKind

CLOCK_LEAD = timedelta(seconds=2)
"""The exchange's clock may be ahead of ours by so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A price, its kind, and when it was true.

    Attributes:
        at: For LAST the exchange's time of the trade; otherwise the arrival of the tick.
    """

    value: float
    kind: PriceKind
    at: datetime | None = None


def price_of(quote: Quote, *, now: datetime, max_last_age: timedelta) -> Price | None:
    """Choose the price that values a position: MARK, LAST, MID, MODEL, else None.

    The quote must be that of a line that can be trusted (`domain.line_trust`). Then a mark counts
    however long it has stood still: a gateway ticks on change, so an unchanged mark is not old.

    LAST counts only if the exchange's time of the trade is recent, and inside an uncrossed
    two-sided quote. Without a bid, a last trade says nothing about today: bid none, ask 0.05 and
    last 1.20 do not mean 1.20. Of a trade without a time the age is unknown.

    While trading is halted there is no MID: the quote is frozen or withdrawn, and nobody has to
    trade at it. MODEL is the option price of the gateway's own model (tick 13).

    Args:
        quote: The newest market data of the contract.
        now: The present moment. A mark that is ahead of it came before the clock was set back, and
            is not used.
        max_last_age: An older last trade is not used.

    >>> from datetime import UTC
    >>> now = datetime(2026, 1, 2, tzinfo=UTC)
    >>> price_of(Quote(conid=1, ask=0.05, last=1.20), now=now, max_last_age=timedelta(60))
    >>> price_of(Quote(conid=1, bid=1.0, ask=1.5), now=now, max_last_age=timedelta(60)).value
    1.25
    """
    if quote.mark is not None and (quote.mark_time is None or quote.mark_time <= now):
        return Price(value=quote.mark, kind=PriceKind.MARK, at=quote.mark_time)
    if quote.bid is not None and quote.ask is not None and quote.bid <= quote.ask:
        if (
            quote.last is not None
            and quote.bid <= quote.last <= quote.ask
            and quote.last_time is not None
            and -CLOCK_LEAD <= now - quote.last_time <= max_last_age
        ):
            return Price(value=quote.last, kind=PriceKind.LAST, at=quote.last_time)
        if not quote.halted:
            mid = (quote.bid + quote.ask) / 2
            return Price(value=mid, kind=PriceKind.MID, at=quote.received_at)
    if quote.model_price is not None:
        return Price(value=quote.model_price, kind=PriceKind.MODEL, at=quote.greeks_time)
    return None
