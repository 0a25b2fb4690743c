"""A book: accounts, contracts, positions and quirks, resolved from a YAML file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from position_sync_dagster.simulator.bookfile import (
    BookPart,
    ChainPart,
    ContractPart,
    StrikeRange,
    UnderlyingPart,
)
from position_sync_dagster.simulator.contract import DATED, OPTIONS, Contract, SecType
from position_sync_dagster.simulator.errors import BookError
from position_sync_dagster.simulator.market import Pin, Underlying
from position_sync_dagster.simulator.source import Location, Source

BOOKS = Path(__file__).parent / "books"
_FARMS = {SecType.FUT: "usfuture", SecType.FOP: "usfuture"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Hold one managed account; `cash` is in its currency."""

    name: str
    currency: str
    cash: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Hold one position as it stands at start; None as cost means "near the fair price"."""

    account: str
    conid: int
    quantity: float
    average_cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Hold everything that a simulated login knows at start."""

    name: str
    as_of: date
    rate: float
    accounts: tuple[Account, ...]
    underlyings: dict[str, Underlying]
    contracts: dict[int, Contract]
    openings: tuple[Opening, ...]
    permissions: dict[int, int] = field(default_factory=dict)
    pins: dict[int, Pin] = field(default_factory=dict)
    halted: frozenset[int] = frozenset()


def load_book(book: str | Path) -> Book:
    """Read a book: the name of a shipped one (`demo`, `small`) or the path of a YAML file.

    Raises BookError, which names file, line and column, cause and remedy.
    """
    path = Path(book)
    if path.suffix == "" and not path.exists():
        shipped = BOOKS / f"{path.name}.yaml"
        if len(path.parts) != 1 or not shipped.exists():
            names = ", ".join(sorted(b.stem for b in BOOKS.glob("*.yaml") if "_" not in b.stem))
            raise BookError(
                path, 0, 0, "there is no such book", f"use one of {names}, or a path to a YAML file"
            )
        path = shipped
    source = Source.read(path)
    return _Builder(source, source.parse(BookPart)).build()


class _Builder:
    """Resolve the parts of one file against each other."""

    def __init__(self, source: Source, part: BookPart) -> None:
        self._source = source
        self._part = part
        self._underlyings: dict[str, Underlying] = {}
        self._contracts: dict[int, Contract] = {}
        self._chains: dict[str, list[int]] = {}

    def build(self) -> Book:
        part = self._part
        for index, account in enumerate(part.accounts):
            if account.name in {other.name for other in part.accounts[:index]}:
                raise self._error(("accounts", index, "name"), "this account stands here twice")
        for index, underlying in enumerate(part.underlyings):
            self._add_underlying(("underlyings", index), underlying)
        for index, contract in enumerate(part.contracts):
            self._add_contract(("contracts", index), contract)
        for index, chain in enumerate(part.chains):
            self._add_chain(("chains", index), chain)
        openings = tuple(self._openings())
        pins: dict[int, Pin] = {}
        for index, entry in enumerate(part.no_bid):
            self._known(("no_bid", index, "conid"), entry.conid)
            pins[entry.conid] = Pin(ask=entry.ask, last=entry.last)
        for index, permission in enumerate(part.permissions):
            self._known(("permissions", index, "conid"), permission.conid)
        for index, conid in enumerate(part.halted):
            self._known(("halted", index), conid)
        return Book(
            name=part.name or self._source.path.stem,
            as_of=part.as_of,
            rate=part.rate,
            accounts=tuple(
                Account(name=a.name, currency=a.currency, cash=a.cash) for a in part.accounts
            ),
            underlyings=self._underlyings,
            contracts=self._contracts,
            openings=openings,
            permissions={p.conid: p.code for p in part.permissions},
            pins=pins,
            halted=frozenset(part.halted),
        )

    def _error(self, location: Location, cause: str, remedy: str = "correct it") -> BookError:
        return self._source.error(location, cause, remedy)

    def _known(self, location: Location, conid: int) -> None:
        if conid not in self._contracts:
            raise self._error(
                location,
                f"no contract of this book has conid {conid}",
                "define it under contracts or chains, or correct the number",
            )

    def _add(self, location: Location, contract: Contract) -> None:
        if contract.conid in self._contracts:
            raise self._error(
                location,
                f"conid {contract.conid} is used twice",
                "give every contract its own number (chains count up from first_conid)",
            )
        self._contracts[contract.conid] = contract

    def _add_underlying(self, at: Location, part: UnderlyingPart) -> None:
        if part.symbol in self._underlyings:
            raise self._error((*at, "symbol"), f"the underlying {part.symbol} stands here twice")
        if part.sec_type not in (SecType.STK, SecType.IND, SecType.FUT):
            raise self._error((*at, "sec_type"), "an underlying is a STK, an IND or a FUT")
        if part.sec_type is SecType.FUT and part.expiry is None:
            raise self._error(at, "a future needs an expiry", "add expiry: YYYYMMDD")
        self._underlyings[part.symbol] = Underlying(
            symbol=part.symbol,
            conid=part.conid,
            price=part.price,
            volatility=part.volatility,
            currency=part.currency,
            exchange=part.exchange,
            sec_type=part.sec_type,
            name=part.name,
        )
        future = part.sec_type is SecType.FUT
        self._add(
            (*at, "conid"),
            Contract(
                conid=part.conid,
                symbol=part.symbol,
                sec_type=part.sec_type,
                underlying=part.symbol,
                expiry=(part.expiry or "") if future else "",
                multiplier=part.multiplier if future else 1.0,
                currency=part.currency,
                exchange=part.exchange,
                local_symbol=_future_name(part.symbol, part.expiry or "")
                if future
                else part.symbol,
                trading_class=part.symbol,
                price_magnifier=part.price_magnifier,
                min_tick=part.min_tick,
                long_name=part.name or part.symbol,
                farm=_FARMS.get(part.sec_type, "usfarm"),
            ),
        )

    def _add_contract(self, at: Location, part: ContractPart) -> None:
        underlying = self._underlying((*at, "underlying"), part.underlying)
        if part.sec_type in DATED and part.expiry is None:
            raise self._error(at, f"a {part.sec_type} needs an expiry", "add expiry: YYYYMMDD")
        if part.sec_type in OPTIONS and (part.strike is None or part.right is None):
            raise self._error(at, f"a {part.sec_type} needs strike and right", "add both")
        listed = part.exchange or ("AMEX" if part.sec_type is SecType.OPT else underlying.exchange)
        self._add(
            (*at, "conid"),
            _contract(
                part.conid,
                underlying,
                part.sec_type,
                expiry=part.expiry or "",
                strike=part.strike or 0.0,
                right=part.right or "",
                multiplier=part.multiplier or (100.0 if part.sec_type is SecType.OPT else 1.0),
                exchange=listed,
                currency=part.currency or underlying.currency,
                trading_class=part.trading_class or underlying.symbol,
                local_symbol=part.local_symbol or "",
                price_magnifier=part.price_magnifier,
                min_tick=part.min_tick,
            ),
        )

    def _add_chain(self, at: Location, part: ChainPart) -> None:
        underlying = self._underlying((*at, "underlying"), part.underlying)
        if part.name in self._chains:
            raise self._error((*at, "name"), f"the chain {part.name} stands here twice")
        strikes = part.strikes.values() if isinstance(part.strikes, StrikeRange) else part.strikes
        legs = [
            (expiry, strike, right)
            for expiry in part.expiries
            for strike in strikes
            for right in part.rights
        ]
        listed = part.exchange or ("AMEX" if part.sec_type is SecType.OPT else underlying.exchange)
        for offset, (expiry, strike, right) in enumerate(legs):
            self._add(
                (*at, "first_conid"),
                _contract(
                    part.first_conid + offset,
                    underlying,
                    part.sec_type,
                    expiry=expiry,
                    strike=strike,
                    right=right,
                    multiplier=part.multiplier,
                    exchange=listed,
                    currency=underlying.currency,
                    trading_class=part.trading_class or underlying.symbol,
                    local_symbol="",
                    price_magnifier=part.price_magnifier,
                    min_tick=part.min_tick,
                ),
            )
        self._chains[part.name] = [part.first_conid + offset for offset in range(len(legs))]

    def _underlying(self, location: Location, symbol: str) -> Underlying:
        found = self._underlyings.get(symbol)
        if found is None:
            known = ", ".join(self._underlyings)
            raise self._error(
                location, f"there is no underlying {symbol}", f"define it, or use one of {known}"
            )
        return found

    def _openings(self) -> Iterator[Opening]:
        accounts = {account.name for account in self._part.accounts}
        seen: set[tuple[str, int]] = set()
        for index, part in enumerate(self._part.positions):
            at: Location = ("positions", index)
            if part.account not in accounts:
                raise self._error(
                    (*at, "account"),
                    f"there is no account {part.account} in this book",
                    f"use one of {', '.join(sorted(accounts))}, or add it under accounts",
                )
            if (part.conid is None) == (part.chain is None):
                raise self._error(at, "a position names either a conid or a chain", "give one")
            quantities = part.quantities or ([] if part.quantity is None else [part.quantity])
            if not quantities or (part.quantities is not None and part.quantity is not None):
                raise self._error(at, "a position has a quantity or quantities", "give one")
            if part.conid is not None:
                self._known((*at, "conid"), part.conid)
                conids = [part.conid]
            else:
                conids = self._chains.get(part.chain or "", [])
                if not conids:
                    raise self._error((*at, "chain"), f"there is no chain {part.chain}")
            for offset, conid in enumerate(conids):
                if (part.account, conid) in seen:
                    raise self._error(at, f"{part.account} holds conid {conid} twice")
                seen.add((part.account, conid))
                yield Opening(
                    account=part.account,
                    conid=conid,
                    quantity=quantities[offset % len(quantities)],
                    average_cost=part.average_cost,
                )


def _contract(
    conid: int,
    underlying: Underlying,
    sec_type: SecType,
    *,
    expiry: str,
    strike: float,
    right: str,
    multiplier: float,
    exchange: str,
    currency: str,
    trading_class: str,
    local_symbol: str,
    price_magnifier: int,
    min_tick: float,
) -> Contract:
    if not local_symbol:
        local_symbol = underlying.symbol
        if sec_type is SecType.OPT:
            local_symbol = f"{trading_class:<6}{expiry[2:]}{right}{round(strike * 1000):08d}"
        elif sec_type is SecType.FUT:
            local_symbol = _future_name(underlying.symbol, expiry)
        elif sec_type is SecType.FOP:
            local_symbol = f"{_future_name(underlying.symbol, expiry)} {right}{strike:g}"
    return Contract(
        conid=conid,
        symbol=underlying.symbol,
        sec_type=sec_type,
        underlying=underlying.symbol,
        under_conid=underlying.conid,
        expiry=expiry,
        strike=strike,
        right=right,
        multiplier=multiplier,
        currency=currency,
        exchange=exchange,
        local_symbol=local_symbol,
        trading_class=trading_class,
        price_magnifier=price_magnifier,
        min_tick=min_tick,
        long_name=underlying.name or underlying.symbol,
        farm=_FARMS.get(sec_type, "usfarm"),
    )


def _future_name(symbol: str, expiry: str) -> str:
    """Write a future as exchanges do: symbol, month letter, last digit of the year."""
    return f"{symbol}{'FGHJKMNQUVXZ'[int(expiry[4:6]) - 1]}{expiry[3]}" if expiry else symbol
