"""What stands in a recording for accounts, models, groups, quantities and amounts."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation
from random import Random

from ib_gateway_simulator.protocol.fields import number

# Replaces a quantity or an amount that is not a number: its text may be anything.
UNREADABLE = "?"

# A factor of 2 or more keeps different quantities different when they are rounded up.
LEAST_FACTOR = 2.0
GREATEST_FACTOR = 10.0

# A greater number means "no value": the gateway writes the largest double for it.
UNSET_FROM = 1e300

# The largest number of digits after the point of a quantity; IB's quantities have four.
MOST_DIGITS = 8

# Account ids as IB writes them: U1234567, DU1234567, F1234567, DF1234567, I1234567.
_ANY_ACCOUNT = re.compile(r"\bD?[UFI][A-Z]*\d{3,}[A-Z]?\b", re.IGNORECASE)


class Pseudonyms:
    """Replaces names and numbers, each one always in the same way.

    Names are numbered in the order of their first appearance. Each holding and each account has a
    secret random factor, so that neither a quantity nor the relation of two holdings can be
    computed back; nothing of it is written.

    Args:
        random: The source of the factors.
        keep_quantities: Write quantities and amounts as they are.
    """

    def __init__(self, random: Random, *, keep_quantities: bool = False) -> None:
        self._random = random
        self._keep = keep_quantities
        self._accounts: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._factors: dict[tuple[str, str], float] = {}
        self._known: re.Pattern[str] | None = None

    # -- names --------------------------------------------------------------------------------

    def account(self, name: str) -> str:
        """Return what stands for an account; empty and `All` stay.

        It is always a simulated account: a replay must never pass for a live or paper login.
        """
        if name in ("", "All"):
            return name
        if name not in self._accounts:
            self._accounts[name] = f"DUSIM{len(self._accounts) + 1:04d}"
            longest_first = sorted(self._accounts, key=len, reverse=True)
            self._known = re.compile("|".join(map(re.escape, longest_first)))
        return self._accounts[name]

    def name(self, kind: str, name: str) -> str:
        """Return what stands for another name, such as `MODEL1`; an empty one stays."""
        if not name:
            return name
        count = sum(1 for known_kind, _ in self._names if known_kind == kind)
        return self._names.setdefault((kind, name), f"{kind}{count + 1}")

    def known_in(self, text: str) -> str:
        """Return a text with what stands for the accounts that were seen before."""
        if self._known is None:
            return text
        return self._known.sub(lambda match: self._accounts[match[0]], text)

    def text(self, text: str) -> str:
        """Return a text with what stands for everything in it that looks like an account."""
        for match in _ANY_ACCOUNT.findall(text):
            self.account(match)
        return self.known_in(text)

    def without_digits(self, text: str) -> str:
        """Return a text with 0 for each digit that is not part of what stands for an account."""
        pseudonyms = "|".join(self._accounts.values())
        return re.sub(
            rf"\b(?:{pseudonyms})\b|\d" if pseudonyms else r"\d", _pseudonym_or_zero, text
        )

    # -- numbers ------------------------------------------------------------------------------

    def quantity(self, account: str, conid: str, text: str) -> str:
        """Return what stands for the quantity of a holding: its sign, and another size."""
        if self._keep:
            return text
        try:
            held = Decimal(text or "NaN")
        except InvalidOperation:
            return UNREADABLE
        if not held.is_finite() or held == 0 or abs(held) >= UNSET_FROM:
            return text

        exponent = held.as_tuple().exponent
        digits = 0
        if isinstance(exponent, int):
            digits = max(0, -exponent)

        if digits > MOST_DIGITS:
            return UNREADABLE
        unit = Decimal(10) ** digits
        size = math.ceil(abs(held) * unit * Decimal(self._factor(account, conid))) / unit
        return f"{size if held > 0 else -size:f}"

    def of_holding(self, account: str, conid: str, held: str, text: str) -> str:
        """Return what stands for an amount of a holding of which `held` units are held.

        Amounts grow as the quantity did, so that a value stays price × multiplier × quantity.
        """
        if self._keep:
            return text
        try:
            ratio = float(self.quantity(account, conid, held)) / float(held)
        except (ValueError, ZeroDivisionError):
            ratio = math.nan
        if not math.isfinite(ratio) or ratio <= 0:
            ratio = self._factor(account, conid)
        return scaled(text, ratio)

    def of_account(self, account: str, text: str) -> str:
        """Return what stands for an amount of an account."""
        if self._keep:
            return text

        return scaled(text, self._factor(account, ""))

    def _factor(self, account: str, conid: str) -> float:
        key = (account, conid)
        if key not in self._factors:
            self._factors[key] = self._random.uniform(LEAST_FACTOR, GREATEST_FACTOR)
        return self._factors[key]


def _pseudonym_or_zero(found: re.Match[str]) -> str:
    if len(found[0]) > 1:
        return found[0]

    return "0"


def scaled(text: str, ratio: float) -> str:
    """Multiply an amount; a text for "no value" stays, any other text is replaced.

    >>> scaled("-12.5", 3.0), scaled("NaN", 3.0), scaled("0.00", 3.0), scaled("Ann Smith", 3.0)
    ('-37.5', 'NaN', '0.00', '?')
    """
    if not text:
        return text
    try:
        value = float(text)
    except ValueError:
        return UNREADABLE
    if not math.isfinite(value) or abs(value) >= UNSET_FROM or value == 0:
        return text
    _, _, digits = text.partition(".")
    places = 2
    if digits.isdigit():
        places = len(digits)

    return number(round(value * ratio, max(2, places)))
