"""Every number of IB's protocol that the product knows, with what it means for us.

`Connectivity` follows from them whether the gateway has IB, and which farms are broken.

Sources: [R] recorded on a real gateway, quoted in public threads or captures; [D] IB's
documentation ("Message Codes", "Available Tick Types"); [C] the source of ib_async 2.1.0;
[P] another project's report, not a recording.
"""

import re
from collections.abc import Callable, Sequence
from enum import IntEnum

from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.errors import BrokerUnavailableError


class GatewayCode(IntEnum):
    """The code of a message of type 4 (error or notice) that the product acts on.

    A code that is not listed here changes nothing, such as 10090, 10091 and 10167: some ticks are
    not subscribed, or delayed, and the others follow.

    >>> f"{GatewayCode.TOO_MANY_LINES}", GatewayCode.TOO_MANY_LINES == 101
    ('101', True)
    """

    # The request for a line is refused, since all lines of the login are in use; the lines that
    # run go on. We learn the limit from it. [D]
    TOO_MANY_LINES = 101

    # The gateway knows no such contract. It comes instead of contract details, and no end message
    # follows; for a line it ends the request. [R: ibkr-go contract_details_not_found.txt]
    NO_CONTRACT = 200

    # The gateway streams nothing under this request id. It usually answers a second cancel; for a
    # line that we hold it means that the line is gone. [R: rust-ibapi issues/224 and /236]
    LINE_UNKNOWN = 300

    # The request did not pass validation. ib_async logs it as a warning only, and the caller would
    # wait for ever. [R; C: wrapper.py]
    REQUEST_INVALID = 321

    # The gateway failed to process the request, for example because it takes the request's id for
    # one that is in use ("Duplicate ticker id", after a reconnect: stoqey/ib issues/240); another
    # request has another id. [P: osauer/ibkr treats it as final]
    REQUEST_FAILED = 322

    # Another connection has our client id; the gateway closes ours. It also comes for a while
    # after a dropped connection. We try the next id of the pool. [R: node-ib issues/27]
    CLIENT_ID_IN_USE = 326

    # The login has no subscription for live data of the contract. [R: node-ib issues/73]
    NOT_SUBSCRIBED = 354

    # The gateway has lost IB. Our socket stays open, and nothing that arrives on it is current.
    # [R: IBC issues/143]
    CONNECTIVITY_LOST = 1100

    # The gateway has IB again and dropped every subscription. ib_async does nothing; we subscribe
    # to everything again with new request ids. [D]
    RESTORED_DATA_LOST = 1101

    # The gateway has IB again and kept every subscription. [R: IBC issues/143]
    RESTORED_DATA_KEPT = 1102

    # The gateway listens on another port from now on, which the text names, and drops this
    # connection. [D; P: rust-ibapi messages.rs]
    PORT_CHANGED = 1300

    # The subscription to an account's values ended: as we requested, or by the gateway itself.
    # Nothing more follows of it. [R: ibkr-go pnl_single.txt]
    ACCOUNT_UNSUBSCRIBED = 2100

    # Another client is subscribed to the values of another account. No end message follows, and
    # ib_async takes it for a warning. [D: "Account Handling"; ib_insync issues/197]
    ACCOUNT_NOT_SERVED = 2101

    # Ticks of this data farm stop without a message for each line. [R: IBC issues/143]
    MARKET_DATA_FARM_BROKEN = 2103

    MARKET_DATA_FARM_OK = 2104
    HISTORY_FARM_BROKEN = 2105
    HISTORY_FARM_OK = 2106

    # Idle, which is no fault: it starts on demand. [R]
    HISTORY_FARM_INACTIVE = 2107

    # Idle, which is no fault: it starts on demand. [R: Lean.Brokerages.IB issues/80]
    MARKET_DATA_FARM_INACTIVE = 2108

    # The gateway is without IB; it sends this to a client that logs in then. [P: stoqey]
    GATEWAY_OFFLINE = 2110

    SECURITY_DEFINITION_FARM_BROKEN = 2157
    SECURITY_DEFINITION_FARM_OK = 2158

    # Idle, which is no fault: it starts on demand. [P: groups.io, twsapi message 51396]
    SECURITY_DEFINITION_FARM_INACTIVE = 2159

    # Market data need an additional subscription for the API. [R: ibkr-go]
    NOT_SUBSCRIBED_FOR_API = 10089

    # Live data are not subscribed, and delayed data were not requested. [R: deephaven-ib
    # issues/44]
    DELAYED_NOT_ENABLED = 10168

    # One subscription was cut while its data farm was down. [P: nautilus_trader pull/4412]
    CUT_BY_FARM = 10182

    # As 10168, in IB's own list of codes, which has this number alone. [D]
    DELAYED_DISABLED = 10186

    # The same user watches live data elsewhere; one code per line. It may end at any moment.
    # [R: Lean.Brokerages.IB issues/140]
    COMPETING_SESSION = 10197


# The gateway has lost IB: while we were connected, or before.
OFFLINE = frozenset({GatewayCode.CONNECTIVITY_LOST, GatewayCode.GATEWAY_OFFLINE})

# The gateway has IB again, without or with the subscriptions from before.
RESTORED = frozenset({GatewayCode.RESTORED_DATA_LOST, GatewayCode.RESTORED_DATA_KEPT})

# A data farm is broken; the text names it.
FARM_BROKEN = frozenset(code for code in GatewayCode if code.name.endswith("FARM_BROKEN"))

# A data farm works, or is idle until somebody needs it; the text names it.
FARM_OK = frozenset(
    code for code in GatewayCode if code.name.endswith(("FARM_OK", "FARM_INACTIVE"))
)


def farm_of(text: str) -> str:
    """Return the name of the data farm in a notice about one; the name may have full stops.

    2103 to 2106, 2157 and 2158 write it after a colon, 2107 and 2108 after a full stop. [R:
    rust-ibapi v1.2.2; a login with usfarm and usfarm.nj: ibkr-go]

    >>> farm_of("Market data farm connection is OK:usfarm.nj")
    'usfarm.nj'
    >>> farm_of("connection is inactive but should be available upon demand.usopt")
    'usopt'
    """
    return re.split("[:.：。]", text, maxsplit=1)[-1].strip()


def said(code: int, text: str) -> str:
    """Return a message of the gateway for people: it may be in any language, so with its code."""
    return f"{readable(text)} (code {code})"


_ESCAPED = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|(?:\\x[0-9a-f]{2})+")


def readable(text: str) -> str:
    r"""Return a text of the gateway with the characters that stand in it as escapes.

    A TWS in Chinese sends literal Unicode escapes; bytes that are no UTF-8 are those of GB 18030,
    which a Chinese Windows writes. [R: rust-ibapi pull/364]

    >>> readable(r"\u8fde\u63a5 OK"), readable(r"\xd6\xd0"), readable(r"\x81 C:\users")
    ('连接 OK', '中', '\\x81 C:\\users')
    """

    def decoded(escapes: re.Match[str]) -> str:
        """Return the characters of some escapes (see above), or the escapes if they are none."""
        sent = escapes[0]
        kind = sent[1]  # u: UTF-16; x: the bytes of GB 18030
        data = bytes.fromhex(sent.replace(f"\\{kind}", ""))
        try:
            return data.decode("utf-16-be" if kind == "u" else "gb18030")
        except UnicodeDecodeError:
            return sent

    return _ESCAPED.sub(decoded, text)


# The login may not have live data of the contract now; it may still have delayed data.
NOT_PERMITTED = frozenset(
    {
        GatewayCode.NOT_SUBSCRIBED,
        GatewayCode.NOT_SUBSCRIBED_FOR_API,
        GatewayCode.DELAYED_NOT_ENABLED,
        GatewayCode.DELAYED_DISABLED,
        GatewayCode.COMPETING_SESSION,
    }
)

# The request for market data is dead after these.
ENDS_LINE = NOT_PERMITTED | {
    GatewayCode.TOO_MANY_LINES,
    GatewayCode.NO_CONTRACT,
    GatewayCode.LINE_UNKNOWN,
    GatewayCode.REQUEST_INVALID,
    GatewayCode.REQUEST_FAILED,
    GatewayCode.CUT_BY_FARM,
}


# Delays before a refused line is requested again, by the code of the refusal. A competing session
# (10197) and a farm outage (10182) may end at any moment; a missing subscription is seldom bought.
RETRY_WAITS: dict[int, Backoff] = {
    GatewayCode.COMPETING_SESSION: Backoff(first_s=60.0, longest_s=600.0),
    GatewayCode.CUT_BY_FARM: Backoff(first_s=30.0, longest_s=300.0),
    GatewayCode.LINE_UNKNOWN: Backoff(first_s=5.0, longest_s=300.0),
    GatewayCode.REQUEST_FAILED: Backoff(first_s=5.0, longest_s=300.0),
    GatewayCode.NO_CONTRACT: Backoff(first_s=60.0, longest_s=14_400.0),
}

# After any other code.
OTHER_RETRY_WAIT = Backoff(first_s=1800.0, longest_s=14_400.0)


def is_notice(code: int) -> bool:
    """Return whether a code is a notice of the system or a warning, which ends no request.

    >>> is_notice(2104), is_notice(GatewayCode.REQUEST_INVALID)
    (True, False)
    """
    return 2100 <= code < 2200 or 1100 <= code < 1400


class MarketDataType(IntEnum):
    """The kind of market data of a line. Source: IB, "Market Data Types"."""

    LIVE = 1
    FROZEN = 2
    DELAYED = 3
    DELAYED_FROZEN = 4


DELAYED_TYPES = frozenset({MarketDataType.DELAYED, MarketDataType.DELAYED_FROZEN})


# Gets each message of a connection: whether the client SENT or RECEIVED it, and its fields. Two
# have names in place of an id: the version of the gateway at the log-in, and the connection's end.
SENT, RECEIVED = True, False
Listener = Callable[[bool, Sequence[str]], object]
GREETING, HUNG_UP = "serverVersion", "closed"


class MessageType(IntEnum):
    """The first field of a message from the gateway, where we read the message ourselves."""

    ERROR = 4
    PORTFOLIO_VALUE = 7
    ACCOUNT_TIME = 8
    CONTRACT_DETAILS = 10
    EXECUTION = 11
    BOND_DETAILS = 18
    ACCOUNT_DOWNLOAD_END = 54
    POSITION = 61
    POSITION_END = 62
    PNL = 94
    PNL_SINGLE = 95


# The tag of message 6 that says whether the values of an account are valid. With `false` IB's
# server is being reset, and what follows can be out of date or incorrect. Source: IB, "Account
# Updates" (interactivebrokers.github.io/tws-api/account_updates.html).
ACCOUNT_READY = "AccountReady"

# The prefix of the names of algorithm venues. Contract details of futures list one beside the
# exchange, as in `CME,QBALGO`; programs leave its details out.
# [P: public listings of contract details] That it has no market data is not verified: no public
# source was found that says so.
ALGO_VENUE = "QBALGO"

# Tick type of the mark price, sent for generic tick 232. [D]
MARK_TICK = 37

# Tick types of prices and sizes of bid, ask and last of delayed data, which the gateway never sends
# for live data, whatever message 58 says. [D]
DELAYED_TICKS = frozenset(range(66, 72))

# The same of live and delayed data. [D]
QUOTE_TICKS = DELAYED_TICKS | set(range(6))

# Asks for the dividends of a stock (tick type 59). Source: IB, "Tick Types", IB Dividends; a
# gateway that refuses it by 321 is asked without it.
DIVIDENDS_GENERIC_TICK = "456"

# Asks for the mark price. Real gateways refuse a list that names it otherwise: one illegal entry
# refuses the whole request with 321. [R]
MARK_PRICE_GENERIC_TICK = "232"


class Connectivity:
    """Whether the gateway has IB, and which data farms are broken, by its newest messages.

    Attributes:
        lost: The message that it has lost IB (1100, 2110), else None: what it sends without IB is
            old.
        broken_farms: The data farms that are broken, each with the code that said so; the dict is
            changed in place.

    >>> connectivity = Connectivity()
    >>> connectivity.take(1100, "Connectivity between IBKR and TWS has been lost.")
    >>> connectivity.lost
    'Connectivity between IBKR and TWS has been lost. (code 1100)'
    """

    def __init__(self) -> None:
        self.lost: str | None = None
        self.broken_farms: dict[str, int] = {}

    @property
    def knows_contracts(self) -> bool:
        """Return whether an answer that there is no such contract (200) counts.

        It comes for every contract while the farm of definitions is away [R: nautilus_trader
        issues/4455].
        """
        broken = GatewayCode.SECURITY_DEFINITION_FARM_BROKEN in self.broken_farms.values()
        return self.lost is None and not broken

    def require_ib(self) -> None:
        """Check that the gateway has IB: without it nothing that it sends is current.

        Raises:
            BrokerUnavailableError: With the gateway's own message.
        """
        if self.lost is not None:
            raise BrokerUnavailableError(self.lost, remedy="It comes back by itself.")

    def take(self, code: int, text: str) -> None:
        """Follow a message of type 4; a code that is none of IB or a farm changes nothing."""
        if code in OFFLINE:
            self.lost = said(code, text)
        elif code in RESTORED:
            self.lost = None
        elif code in FARM_BROKEN:
            self.broken_farms[farm_of(text)] = code
        elif code in FARM_OK:
            self.broken_farms.pop(farm_of(text), None)
