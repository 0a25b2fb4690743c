"""The price rule: which price of a quote values a position; pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.update import PriceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A price, its kind, and when it was true.

    Attributes:
        at: For LAST the exchange's time of the trade, where it gave one; otherwise the arrival of
            the tick.
    """

    value: float
    kind: PriceKind
    at: datetime | None = None


def price_of(quote: Quote, *, now: datetime, max_mark_age: timedelta) -> Price | None:
    """Choose the price that values a position: MARK, LAST inside the quote, MID, else None.

    LAST counts only inside an uncrossed two-sided quote. Without a bid, a last trade says nothing
    about today: bid none, ask 0.05 and last 1.20 do not mean 1.20.

    While trading is halted a mark counts whatever its age, with its own time, since nothing can
    make it outdated. LAST is the last trade before the halt. There is no MID: the quote is frozen
    or withdrawn, and nobody has to trade at it.

    Args:
        quote: The newest market data of the contract.
        now: The present moment.
        max_mark_age: An older mark is not used. Nor is one from the future: it came before the
            clock was set back.

    >>> from datetime import UTC
    >>> now = datetime(2026, 1, 2, tzinfo=UTC)
    >>> price_of(Quote(conid=1, ask=0.05, last=1.20), now=now, max_mark_age=timedelta(60))
    >>> price_of(Quote(conid=1, bid=1.0, ask=1.5), now=now, max_mark_age=timedelta(60)).value
    1.25
    """
    if quote.mark is not None and quote.mark_time is not None:
        age = now - quote.mark_time
        if timedelta() <= age and (quote.halted or age <= max_mark_age):
            return Price(value=quote.mark, kind=PriceKind.MARK, at=quote.mark_time)
    if quote.bid is None or quote.ask is None or quote.bid > quote.ask:
        return None
    if quote.last is not None and quote.bid <= quote.last <= quote.ask:
        at = quote.last_time or quote.received_at
        return Price(value=quote.last, kind=PriceKind.LAST, at=at)
    if quote.halted:
        return None
    mid = (quote.bid + quote.ask) / 2
    return Price(value=mid, kind=PriceKind.MID, at=quote.received_at)
