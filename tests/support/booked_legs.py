"""Legs of a simulator's book: their terms, and a book with one of them only."""

from functools import cache
from typing import Any

from ib_gateway_simulator import Book, load_book


@cache
def _book(name: str) -> Book:
    return load_book(name)


def terms_of(conid: int, book: Book | str = "small") -> dict[str, Any]:
    """Return symbol, right, strike and expiry of a contract, as arguments of a leg."""
    contract = (_book(book) if isinstance(book, str) else book).contracts[conid]
    return {
        "symbol": contract.symbol,
        "right": contract.right or None,
        "strike": contract.strike if contract.right else None,
        "expiry": contract.expiry or None,
    }
