"""The ids of requests: ib_async keeps them, and refusals name the id alone."""

from ib_async import IB, Contract, Ticker

_MARKET_DATA = "mktData"
"""Under this name ib_async keeps the requests of `reqMktData`."""

# Tickers: `IB` has one ticker per contract for ever. We need the id of each request, and a ticker
# without old prices when a contract is requested again.


def request_id_of(ib: IB, ticker: Ticker) -> int:
    """Return the id of the market data request of a ticker; refusals name the id alone."""
    return ib.wrapper.ticker2ReqId[_MARKET_DATA][ticker]


def packet_time(ib: IB) -> float:
    """Return when the packet that is being read arrived, in Unix seconds.

    `Ticker.time` is the same as a datetime: this one is cheaper for each tick.
    """
    return ib.wrapper.time


def retire_ticker(ib: IB, ticker: Ticker, contract: Contract) -> None:
    """End a ticker without a message, so that the next request of the contract gets a new one.

    Ticks of the old request still find the old ticker, until `forget_request`.
    """
    ib.wrapper.endTicker(ticker, _MARKET_DATA)
    ib.wrapper.tickers.pop(hash(contract), None)


def forget_request(ib: IB, request_id: int) -> None:
    """Drop a retired request; ib_async keeps each for ever, and logs ticks of unknown ones."""
    ib.wrapper.reqId2Ticker.pop(request_id, None)


# Profit and loss: refusals name the id alone, and a refused request stays listed.


def account_pnl_request(ib: IB, account: str) -> int | None:
    """Return the id of an account's request for profit and loss; None where there is none."""
    return ib.wrapper.pnlKey2ReqId.get((account, ""))


def forget_account_pnl(ib: IB, account: str) -> None:
    """Drop an account's request without a message: the gateway has ended it."""
    request = ib.wrapper.pnlKey2ReqId.pop((account, ""), None)
    if request is not None:
        ib.wrapper.reqId2PnL.pop(request, None)


def pnl_single_request(ib: IB, account: str, conid: int) -> int:
    """Return the id of a holding's request for profit and loss."""
    return ib.wrapper.pnlSingleKey2ReqId[(account, "", conid)]


def forget_pnl_single(ib: IB, account: str, conid: int) -> None:
    """Drop a holding's request without a message: the gateway has ended it."""
    request = ib.wrapper.pnlSingleKey2ReqId.pop((account, "", conid), None)
    if request is not None:
        ib.wrapper.reqId2PnlSingle.pop(request, None)
