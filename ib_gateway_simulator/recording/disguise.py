"""What of each message is written: its fields, with pseudonyms for what identifies the account.

Only messages whose layout is known are written with their fields, so that nothing unknown can
hold a secret. The layouts are those of server versions 176 to 178.
"""

from __future__ import annotations

import re

from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.recording.pseudonyms import Pseudonyms

# Order status, open orders, executions, commissions, bound and completed orders: they are neither
# recorded nor passed on.
REPORTS_OF_ORDERS = frozenset({"3", "5", "11", "59", "100", "101"})

# The ends of the lists of open orders, of executions and of completed orders.
ENDS_OF_ORDER_LISTS = frozenset({"53", "55", "102"})

# Messages of the gateway about market data, contracts and time, and ends of lists.
_MESSAGES = "1 2 8 10 21 45 46 49 52 53 55 57 58 62 64 72 74 75 76 77 79 80 81 82 85 93 102"
_PUBLIC_MESSAGES = frozenset(_MESSAGES.split())

# Requests without a name or an amount.
_REQUESTS = "1 2 5 8 9 16 17 49 59 61 63 64 75 77 78 79 80 81 82 83 85 91 93 95 99"
_PUBLIC_REQUESTS = frozenset(_REQUESTS.split())

# Where a request has its account and its model.
_REQUEST_PLACES: dict[str, tuple[int, int | None]] = {
    "6": (3, None), "7": (4, None), "74": (3, 4), "76": (3, 4), "92": (2, 3), "94": (2, 3),
}  # fmt: skip

# Values of an account that are neither a name nor an amount. All others are scaled.
_KEPT_TAGS = re.compile(
    r"(AccountReady|AccountType|Currency|RealCurrency|ExchangeRate|Cushion"
    r"|(Leverage|DayTradesRemaining|TradingType|SegmentTitle|WhatIfPMEnabled|NLVAndMarginInReview"
    r"|ColumnPrio|LookAheadNextChange|HighestSeverity)\S*)"
)

_ACCOUNT_TAGS = frozenset({"AccountCode", "AccountOrGroup", "Account"})
# The texts of errors that IB publishes: their digits say nothing about the account.
_PUBLISHED_TEXTS = frozenset((str(int(code)), code.text) for code in Code)

NEXT_ID = "9"
# Stands for the id of the next order, which counts the orders of the account.
FIRST_ID = "1"


class Disguise:
    """Returns what is written of the messages of one connection.

    Args:
        pseudonyms: What stands for names and numbers, the same for all connections.
    """

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._names = pseudonyms
        self._pnl_requests: dict[str, tuple[str, str]] = {}

    def request(self, fields: Fields) -> Fields | None:
        """Return what is written of a request of the client; None for nothing of its content."""
        kind = fields[0]
        if kind in _PUBLIC_REQUESTS:
            written: Fields | None = fields
        elif kind == "71":
            written = (*fields[:3], *("" for _ in fields[3:]))
        elif kind == "62" and len(fields) == 5:
            group = fields[3]
            if fields[3] != "All":
                group = self._names.name("GROUP", fields[3])

            written = (*fields[:3], group, fields[4])
        elif kind in _REQUEST_PLACES and len(fields) > max(p or 0 for p in _REQUEST_PLACES[kind]):
            written = self._account_request(kind, fields)
        else:
            written = None
        return self._scrubbed(fields, written)

    def _account_request(self, kind: str, fields: Fields) -> Fields:
        account_at, model_at = _REQUEST_PLACES[kind]
        account = fields[account_at]
        if kind in ("92", "94"):
            conid = ""
            if kind == "94" and len(fields) > 4:
                conid = fields[4]

            self._pnl_requests[fields[1]] = (account, conid)
        changed = {account_at: self._names.account(account)}
        if model_at is not None:
            changed[model_at] = self._names.name("MODEL", fields[model_at])
        return _changed(fields, changed)

    def message(self, fields: Fields) -> Fields | None:
        """Return what is written of a message of the gateway; None for nothing of its content."""
        written: Fields | None = None
        match fields[0], len(fields):
            case kind, _ if kind in _PUBLIC_MESSAGES:
                written = fields
            case kind, 3 if kind == NEXT_ID:
                written = (*fields[:2], FIRST_ID)
            case "4", 5 | 6 | 7:
                written = self._error(fields)
            case "6", 6:
                written = self._account_value(fields, tag_at=2, account_at=5)
            case "63", 7:
                written = self._account_value(fields, tag_at=4, account_at=3)
            case "73", 8:
                model = self._names.name("MODEL", fields[4])
                row = self._account_value(fields, tag_at=5, account_at=3)

                written = _changed(row, {4: model})
            case "7", 20:
                written = self._holding(fields, 19, 2, 13, amounts=(15, 17, 18))
            case "61", 16:
                written = self._holding(fields, 2, 3, 14)
            case "71", 18:
                model = self._names.name("MODEL", fields[17])
                written = _changed(self._holding(fields, 3, 4, 15), {17: model})
            case "15", 3:
                names = fields[2].split(",")

                written = (*fields[:2], ",".join(map(self._names.account, names)))
            case "54", 3:
                written = (*fields[:2], self._names.account(fields[2]))
            case "94", 5:
                account, _ = self._pnl_requests.get(fields[1], ("", ""))
                amounts = (self._names.of_account(account, text) for text in fields[2:])
                written = (*fields[:2], *amounts)
            case "95", 7:
                written = self._pnl_single(fields)
        return self._scrubbed(fields, written)

    def _holding(
        self,
        fields: Fields,
        account_at: int,
        conid_at: int,
        held_at: int,
        amounts: tuple[int, ...] = (),
    ) -> Fields:
        account = fields[account_at]
        conid = fields[conid_at]
        held = fields[held_at]
        changed = {
            account_at: self._names.account(account),
            held_at: self._names.quantity(account, conid, held),
        }
        for at in amounts:
            changed[at] = self._names.of_holding(account, conid, held, fields[at])
        return _changed(fields, changed)

    def _pnl_single(self, fields: Fields) -> Fields:
        account, conid = self._pnl_requests.get(fields[1], ("", ""))
        held = fields[2]
        amounts = (self._names.of_holding(account, conid, held, text) for text in fields[3:])
        return (*fields[:2], self._names.quantity(account, conid, held), *amounts)

    def _account_value(self, fields: Fields, *, tag_at: int, account_at: int) -> Fields:
        account = fields[account_at]
        tag = fields[tag_at]
        value = fields[tag_at + 1]
        if tag in _ACCOUNT_TAGS:
            value = self._names.account(value)
        elif _KEPT_TAGS.fullmatch(tag) is None and value not in ("true", "false"):
            value = self._names.of_account(account, value) if _is_number(value) else ""
        return _changed(fields, {account_at: self._names.account(account), tag_at + 1: value})

    def _error(self, fields: Fields) -> Fields:
        """Keep the words of an error, and its digits only if the whole text is published.

        Other texts may hold amounts ("needs 2500 USD more"), whatever their code.
        """
        text = self._names.text(fields[4])
        if (fields[3], text) not in _PUBLISHED_TEXTS:
            text = self._names.without_digits(text)
        return (*fields[:4], text, *("" for _ in fields[5:]))

    def _scrubbed(self, fields: Fields, written: Fields | None) -> Fields | None:
        """Replace accounts also in the fields in which the layout has none."""
        if written is None:
            return None
        return tuple(
            self._names.known_in(new) if new == old else new
            for old, new in zip(fields, written, strict=True)
        )


def _changed(fields: Fields, changed: dict[int, str]) -> Fields:
    return tuple(changed.get(at, field) for at, field in enumerate(fields))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
