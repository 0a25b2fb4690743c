"""Contracts of the small book and their terms, as arguments of a leg."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ib_gateway_simulator import Book, load_book

A = "DUSIM0001"
B = "DUSIM0002"
CALL, PUT, WORTHLESS, CENTS, STOCK, UNHELD = (
    921000001, 921000002, 921000003, 921000004, 920000001, 921000007,
)  # fmt: skip


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


def leg(conid: int, strategy_id: str = "s", **more: Any) -> dict[str, Any]:
    """Return the arguments of a leg, as the small book has it."""
    return {"conid": conid, "strategy_id": strategy_id} | terms_of(conid) | more


def book_of_one_account(name: str = A) -> Book:
    """Return the small book with its first account only, by this name."""
    book = load_book("small")
    openings = tuple(
        replace(opening, account=name) for opening in book.openings if opening.account == A
    )
    return replace(book, accounts=(replace(book.accounts[0], name=name),), openings=openings)


# The conids of a chain follow each other.
FIRST = 931000000
CHAIN = """
name: chain
as_of: 2028-06-01
accounts: [{accounts}]
underlyings: [{{symbol: SPY, conid: 930000001, price: 620, volatility: 0.17}}]
chains:
  - {{name: spy, underlying: SPY, first_conid: {first}, expiries: [{expiries}],
     strikes: {{start: 600, stop: {stop}, step: 1}}}}
positions: [{positions}]
"""


def book_of_chain(
    folder: Path, strikes: int, *, accounts: Sequence[str] = (A,), expiries: int = 2
) -> Book:
    """Return a book whose accounts hold one each of the calls and puts on SPY."""
    path = folder / "chain.yaml"
    names = [f"{{name: {account}}}" for account in accounts]
    positions = [f"{{account: {account}, chain: spy, quantities: [1]}}" for account in accounts]
    days = ["20281215", "20290119"][:expiries]
    text = CHAIN.format(
        accounts=", ".join(names),
        positions=", ".join(positions),
        first=FIRST,
        stop=600 + strikes - 1,
        expiries=", ".join(days),
    )
    path.write_text(text)
    return load_book(path)
