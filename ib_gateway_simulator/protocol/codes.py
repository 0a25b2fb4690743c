"""The error and notice codes of the gateway that the simulator uses, each with its text.

This is the only place with these numbers. The note after a code explains it and names the
source of its text: a public log or capture (repository, then issue or file), or the
documentation of IB.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class Code(IntEnum):
    """A code of message 4. `text` is the recorded text, with `{names}` for what varies."""

    text: str

    def __new__(cls, number: int, text: str = "") -> Self:
        code = int.__new__(cls, number)
        code._value_ = number
        code.text = text
        return code

    # A client sends more than 50 messages a second. QuantConnect/Lean pull/913.
    MESSAGE_RATE_EXCEEDED = 100, "Max rate of messages per second has been exceeded."

    # Every market data line is in use. Lean.Brokerages.InteractiveBrokers pull/79.
    LINE_LIMIT_REACHED = 101, "Max number of tickers has been reached."

    # The request id is in use. IB, "API Message Codes".
    DUPLICATE_REQUEST_ID = 102, "Duplicate ticker ID."

    # A request for historical data fails. ib_insync issues/686.
    HISTORICAL_DATA_ERROR = 162, "Historical Market Data Service error message:{cause}"

    # No contract matches. ibkr-go, contract_details_not_found.
    UNKNOWN_CONTRACT = 200, "No security definition has been found for the request"

    # A cancelled id does not stream (any more). rust-ibapi issues/236 and issues/224.
    UNKNOWN_REQUEST_ID = 300, "Can't find EId with tickerId:{req_id}"

    # A field cannot be parsed; the gateway closes. ib_async issues/158, ib_insync issues/152.
    UNREADABLE_REQUEST = (
        320,
        "Error reading request. Unable to parse field: '{field}' for input string: '{value}'",
    )

    # A request is refused. ib-ruby how_to_adapt; the letters differ between gateway builds.
    INVALID_REQUEST = 321, "Error validating request.-'{validator}' : cause - {cause}"

    # Another client has this id; the new connection closes. node-ib issues/27.
    CLIENT_ID_IN_USE = (
        326,
        "Unable to connect as the client id is already in use. Retry with a unique client id.",
    )

    # The login has no live data for the contract. atreyu-backtrader-api issues/8.
    NOT_SUBSCRIBED = (
        354,
        "Requested market data is not subscribed."
        "Delayed market data is available.Error&BEST/STK/Top&BEST/STK/Top",
    )

    # There is no fundamental data. Never recorded; the text follows IB's list of codes.
    FUNDAMENTALS_MISSING = 430, "The fundamentals data for the security specified is missing."

    # The gateway has lost IB; client sockets stay open. IBC issues/143.
    CONNECTIVITY_LOST = 1100, "Connectivity between IB and Trader Workstation has been lost."

    # The gateway is back; clients must subscribe again. Text as listed in Lean pull/5452.
    CONNECTIVITY_RESTORED_DATA_LOST = (
        1101,
        "Connectivity between IB and TWS has been restored - data lost.",
    )

    # The gateway is back; subscriptions go on by themselves. IBC issues/143.
    CONNECTIVITY_RESTORED_DATA_KEPT = (
        1102,
        "Connectivity between IB and Trader Workstation has been restored - data maintained. "
        "{farms}",
    )

    # The gateway listens on another port, and drops its clients. Never recorded; the text follows
    # IB's list of codes.
    PORT_CHANGED = (
        1300,
        "TWS socket port has been reset and this connection is being dropped. "
        "Please reconnect on the new port - {port}",
    )

    # Account updates have ended. ibkr-go, pnl_single.
    ACCOUNT_UNSUBSCRIBED = 2100, "API client has been unsubscribed from account data."

    # Another client holds the account feed for another account. IB, "Account Handling".
    OTHER_ACCOUNT_SUBSCRIBED = (
        2101,
        "Unable to subscribe to account as the following clients are subscribed to a "
        "different account: {clients} ({account})",
    )

    # The contracts of a farm stop ticking. IBC issues/143.
    MARKET_FARM_BROKEN = 2103, "Market data farm connection is broken:{farm}"

    # A farm is there, at login and after 2103. ibkr-go, codec_capture_test.
    MARKET_FARM_OK = 2104, "Market data farm connection is OK:{farm}"

    # A farm of historical data is gone. Text as listed in Lean pull/5452.
    HISTORY_FARM_BROKEN = 2105, "HMDS data farm connection is broken:{farm}"

    # A farm of historical data is there. ibkr-go, historical_schedule_aapl.
    HISTORY_FARM_OK = 2106, "HMDS data farm connection is OK:{farm}"

    # Not an outage. A full stop precedes the farm's name. rust-ibapi v1.2.2.
    HISTORY_FARM_INACTIVE = (
        2107,
        "HMDS data farm connection is inactive but should be available upon demand.{farm}",
    )

    # Not an outage. Lean.Brokerages.InteractiveBrokers issues/80.
    MARKET_FARM_INACTIVE = (
        2108,
        "Market data farm connection is inactive but should be available upon demand.{farm}",
    )

    # A client connects while the gateway has no connection to IB. stoqey errorCode.ts.
    GATEWAY_OFFLINE = (
        2110,
        "Connectivity between Trader Workstation and server is broken. "
        "It will be restored automatically.",
    )

    # Sent between a request and 2104. thetagang issues/175.
    MARKET_FARM_CONNECTING = 2119, "Market data farm is connecting:{farm}"

    # The farm of contract definitions is gone. Never recorded; IB, "System Message Codes".
    DEFINITION_FARM_BROKEN = 2157, "Sec-def data farm connection is broken:{farm}"

    # The last notice of a login. ibkr-go, grounded_bootstrap.
    DEFINITION_FARM_OK = 2158, "Sec-def data farm connection is OK:{farm}"

    # Not an outage. groups.io, twsapi message 51396, names the code; the text is that of 2108.
    DEFINITION_FARM_INACTIVE = (
        2159,
        "Sec-def data farm connection is inactive but should be available upon demand.{farm}",
    )

    # Ends the request. ibkr-go, realtime_bars_api_error.
    SUBSCRIPTION_REQUIRED = (
        10089,
        "Requested market data requires additional subscription for API. "
        "See link in 'Market Data Connections' dialog for more details.",
    )

    # The permitted ticks go on (typically without greeks). node-ib issues/73.
    PARTLY_SUBSCRIBED = (
        10090,
        "Part of requested market data is not subscribed. "
        "Subscription-independent ticks are still active.",
    )

    # The permitted ticks go on. Behaviour: rust-ibapi pull/804; its text was never recorded.
    PARTLY_REQUIRES_SUBSCRIPTION = (
        10091,
        "Part of requested market data requires additional subscription for API. "
        "See link in 'Market Data Connections' dialog for more details.",
    )

    # There is no market depth. Never recorded; the text follows IB's list of codes.
    DEPTH_NOT_SUPPORTED = 10092, "Deep market data is not supported for this combination"

    # Delayed ticks follow. ibkr-go, delayed_quote_reconnect.
    DELAYED_DATA_SHOWN = (
        10167,
        "Requested market data is not subscribed. Displaying delayed market data.",
    )

    # Ends the request. deephaven-ib issues/44.
    DELAYED_DATA_NOT_ENABLED = (
        10168,
        "Requested market data is not subscribed. Delayed market data is not enabled.",
    )

    # There are no news articles. Never recorded; the text follows IB's list of codes.
    NEWS_ARTICLE_MISSING = 10172, "Failed to request news article: no data available"

    # Ends the request. Never recorded; IB, "API Message Codes", which does not list 10168.
    DELAYED_DATA_DISABLED = (
        10186,
        "Requested market data is not subscribed. Delayed market data is not enabled",
    )

    # Ends the request. ibkr-go, api_tick_by_tick_entitlement_errors_aapl.
    TICK_BY_TICK_FAILED = 10189, "Failed to request tick-by-tick data."

    # The user streams elsewhere. ptltrader issues/1, Lean.Brokerages.IB issues/140.
    COMPETING_SESSION = 10197, "No market data during competing live session"

    # The login has no news feed. Never recorded; IB, "API Message Codes".
    NEWS_FEED_NOT_ALLOWED = 10276, "News feed is not allowed."


# The notices about one data farm.
FARM_NOTICES = (
    Code.MARKET_FARM_BROKEN,
    Code.MARKET_FARM_OK,
    Code.HISTORY_FARM_BROKEN,
    Code.HISTORY_FARM_OK,
    Code.HISTORY_FARM_INACTIVE,
    Code.MARKET_FARM_INACTIVE,
    Code.MARKET_FARM_CONNECTING,
    Code.DEFINITION_FARM_BROKEN,
    Code.DEFINITION_FARM_OK,
    Code.DEFINITION_FARM_INACTIVE,
)

# After one of these a market data request is over.
LINE_ENDING_CODES = frozenset(
    {
        Code.NOT_SUBSCRIBED,
        Code.SUBSCRIPTION_REQUIRED,
        Code.DELAYED_DATA_NOT_ENABLED,
        Code.DELAYED_DATA_DISABLED,
        Code.COMPETING_SESSION,
    }
)

# After one of these the permitted ticks keep coming, without greeks.
ADVISORY_CODES = frozenset({Code.PARTLY_SUBSCRIBED, Code.PARTLY_REQUIRES_SUBSCRIPTION})

# The codes that a missing market data permission can have, in order.
PERMISSION_CODES = tuple(sorted({*LINE_ENDING_CODES, *ADVISORY_CODES, Code.DELAYED_DATA_SHOWN}))
