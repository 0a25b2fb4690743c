"""Refusals of the services that a simulated login does not have."""

from __future__ import annotations

from ib_gateway_simulator.protocol import messages
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.requests import Request

_Refusal = tuple[Code, dict[str, str]]

_NO_HISTORY: _Refusal = (Code.HISTORICAL_DATA_ERROR, {"cause": "No historical market data"})
_NO_NEWS_FEED: _Refusal = (Code.NEWS_FEED_NOT_ALLOWED, {})
_NO_OPTION_MODEL: _Refusal = (Code.INVALID_REQUEST, {"validator": "bQ", "cause": "not available"})

# By refused request: the error code and the values of its text. No request stays unanswered.
REFUSALS: dict[str, _Refusal] = {
    "reqHistoricalData": _NO_HISTORY,
    "reqHistoricalTicks": _NO_HISTORY,
    "reqHeadTimeStamp": _NO_HISTORY,
    "reqHistogramData": _NO_HISTORY,
    "reqScannerSubscription": (Code.HISTORICAL_DATA_ERROR, {"cause": "No scanner"}),
    "reqMktDepth": (Code.DEPTH_NOT_SUPPORTED, {}),
    "reqTickByTickData": (Code.TICK_BY_TICK_FAILED, {}),
    "reqRealTimeBars": (Code.SUBSCRIPTION_REQUIRED, {}),
    "reqFundamentalData": (Code.FUNDAMENTALS_MISSING, {}),
    "reqHistoricalNews": (Code.INVALID_REQUEST, {"validator": "cE", "cause": "no news"}),
    "reqNewsArticle": (Code.NEWS_ARTICLE_MISSING, {}),
    "reqWshMetaData": _NO_NEWS_FEED,
    "reqWshEventData": _NO_NEWS_FEED,
    "calculateImpliedVolatility": _NO_OPTION_MODEL,
    "calculateOptionPrice": _NO_OPTION_MODEL,
}


def refusal(request: Request) -> Fields:
    """Return the refusal of a request that is in REFUSALS."""
    code, values = REFUSALS[request.name]
    return messages.error(request.req_id, code, **values)
