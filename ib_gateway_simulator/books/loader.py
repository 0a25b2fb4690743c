"""Reading books from YAML files, with every reference in them resolved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import date
from pathlib import Path

from ib_gateway_simulator.books.book import (
    Account,
    Book,
    CampaignLeg,
    Opening,
    OpeningOrder,
    PastCampaign,
)
from ib_gateway_simulator.books.listing import derived_contract, listed
from ib_gateway_simulator.books.schema import (
    BookPart,
    ChainPart,
    ContractPart,
    ListedPart,
    PositionPart,
    StrikeRange,
    UnderlyingPart,
)
from ib_gateway_simulator.books.yaml_source import Location, Source
from ib_gateway_simulator.errors import BookError
from ib_gateway_simulator.market.quote import Pin
from ib_gateway_simulator.market.underlying import OptionMarket, Underlying
from ib_gateway_simulator.protocol.contract import (
    DATED,
    OPTIONS,
    Contract,
    SecType,
)

BOOKS = Path(__file__).parent

# The fields of a part that an underlying has, and those that a contract on one has.
PRICED = {field.name for field in fields(Underlying)}
TERMS = {
    *("expiry", "strike", "right", "multiplier", "exchange", "currency"),
    *("trading_class", "local_symbol", "price_magnifier", "min_tick"),
}


def shipped_books() -> list[str]:
    """Return the names of the books in this folder, without files that go with a book."""
    return sorted(path.stem for path in BOOKS.glob("*.yaml") if "_" not in path.stem)


def load_book(book: str | Path, day: date | None = None) -> Book:
    """Read a book: the name of one in this folder (`demo`, `small`) or the path of a YAML file.

    Args:
        book: The name or the path.
        day: The day from which the weeks of expiries are counted; by default today.

    Raises:
        BookError: The file has a mistake; it names file, line and column, cause and remedy.
    """
    path = Path(book)
    if path.suffix == "" and not path.is_file():
        shipped = BOOKS / f"{path.name}.yaml"
        if len(path.parts) != 1 or not shipped.exists():
            names = ", ".join(shipped_books())
            raise BookError(
                path, 0, 0, "there is no such book", f"use one of {names}, or a path to a YAML file"
            )
        path = shipped
    source = Source.read(path, day)
    return _Builder(source, source.parse(BookPart)).build()


class _Builder:
    """Resolves the references between the parts of one file."""

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
                raise self._error(("accounts", index, "name"), "this account is defined twice")

        for index, underlying in enumerate(part.underlyings):
            self._add_underlying(("underlyings", index), underlying)
        for index, contract in enumerate(part.contracts):
            self._add_contract(("contracts", index), contract)
        for index, chain in enumerate(part.chains):
            self._add_chain(("chains", index), chain)

        openings = tuple(self._openings())
        self._check_orders({(opening.account, opening.conid) for opening in openings})
        self._check_conids()

        accounts = [Account(**account.model_dump()) for account in part.accounts]
        orders = [OpeningOrder(**order.model_dump()) for order in part.orders]
        pins = {entry.conid: Pin(ask=entry.ask, last=entry.last) for entry in part.no_bid}
        market = part.option_market
        return Book(
            name=part.name or self._source.path.stem,
            as_of=part.as_of,
            rate=part.rate,
            accounts=tuple(accounts),
            underlyings=self._underlyings,
            contracts=self._contracts,
            openings=openings,
            orders=tuple(orders),
            campaigns=tuple(self._campaigns()),
            permissions={permission.conid: permission.code for permission in part.permissions},
            pins=pins,
            hours=part.hours,
            halted=frozenset(part.halted),
            option_market=None if market is None else OptionMarket(**market.model_dump()),
        )

    def _check_orders(self, held: set[tuple[str, int]]) -> None:
        for index, order in enumerate(self._part.orders):
            for conid in order.legs:
                if order.sessions_ago:
                    self._check_known(("orders", index), conid)
                elif (order.account, conid) not in held:
                    raise self._error(("orders", index), f"{order.account} holds no conid {conid}")

    def _check_conids(self) -> None:
        part = self._part
        for index, entry in enumerate(part.no_bid):
            self._check_known(("no_bid", index, "conid"), entry.conid)
        for index, permission in enumerate(part.permissions):
            self._check_known(("permissions", index, "conid"), permission.conid)
        for index, conid in enumerate(part.halted):
            self._check_known(("halted", index), conid)
        for conid in part.costs:
            self._check_known(("costs",), conid)

    def _campaigns(self) -> Iterator[PastCampaign]:
        account = self._part.accounts[0].name
        for index, part in enumerate(self._part.campaigns):
            self._underlying(("campaigns", index, "underlying"), part.underlying)
            fields = part.model_dump(exclude={"legs"})
            legs = tuple(
                CampaignLeg(right=right, percent=percent, quantity=quantity, more_weeks=sum(more))
                for right, percent, quantity, *more in part.legs
            )
            yield PastCampaign(**fields, account=account, legs=legs)

    def _error(self, location: Location, cause: str, remedy: str = "correct it") -> BookError:
        return self._source.error(location, cause, remedy)

    def _check_known(self, location: Location, conid: int) -> None:
        if conid not in self._contracts:
            raise self._error(
                location,
                f"no contract of this book has conid {conid}",
                "define it under contracts or chains, or correct the number",
            )

    def _add(self, location: Location, part: ListedPart, contract: Contract) -> None:
        if contract.conid in self._contracts:
            raise self._error(
                location,
                f"conid {contract.conid} is used twice",
                "give every contract its own number (chains count up from first_conid)",
            )
        self._contracts[contract.conid] = listed(contract, part)

    def _add_underlying(self, at: Location, part: UnderlyingPart) -> None:
        if part.symbol in self._underlyings:
            raise self._error((*at, "symbol"), f"the underlying {part.symbol} is defined twice")
        if part.sec_type not in (SecType.STK, SecType.IND, SecType.FUT):
            raise self._error((*at, "sec_type"), "an underlying is a STK, an IND or a FUT")
        if part.sec_type is SecType.FUT and part.expiry is None:
            raise self._error(at, "a future needs an expiry", "add expiry: YYYYMMDD")
        if part.sec_type is SecType.FUT and part.dividend_yield:
            raise self._error((*at, "dividend_yield"), "a future pays no dividends", "remove it")
        terms = {"price_magnifier", "min_tick"}
        if part.sec_type is SecType.FUT:
            terms |= {"expiry", "multiplier"}

        underlying = Underlying(**part.model_dump(include=PRICED))
        self._underlyings[part.symbol] = underlying
        contract = derived_contract(
            part.conid, underlying, part.sec_type, **part.model_dump(include=terms)
        )
        self._add((*at, "conid"), part, replace(contract, under_conid=0))

    def _add_contract(self, at: Location, part: ContractPart) -> None:
        underlying = self._underlying((*at, "underlying"), part.underlying)
        if part.sec_type in DATED and part.expiry is None:
            raise self._error(at, f"a {part.sec_type} needs an expiry", "add expiry: YYYYMMDD")
        if part.sec_type in OPTIONS and (part.strike is None or part.right is None):
            raise self._error(at, f"a {part.sec_type} needs strike and right", "add both")
        terms = part.model_dump(include=TERMS, exclude_none=True)
        contract = derived_contract(part.conid, underlying, part.sec_type, **terms)
        self._add((*at, "conid"), part, contract)

    def _add_chain(self, at: Location, part: ChainPart) -> None:
        underlying = self._underlying((*at, "underlying"), part.underlying)
        if part.name in self._chains:
            raise self._error((*at, "name"), f"the chain {part.name} is defined twice")
        strikes = part.strikes.values() if isinstance(part.strikes, StrikeRange) else part.strikes
        legs = [
            (expiry, strike, right)
            for expiry in part.expiries
            for strike in strikes
            for right in part.rights
        ]
        terms = part.model_dump(include=TERMS, exclude_none=True)
        for offset, (expiry, strike, right) in enumerate(legs):
            contract = derived_contract(
                part.first_conid + offset,
                underlying,
                part.sec_type,
                expiry=expiry,
                strike=strike,
                right=right,
                **terms,
            )
            self._add((*at, "first_conid"), part, contract)
        self._chains[part.name] = [part.first_conid + offset for offset in range(len(legs))]

    def _underlying(self, location: Location, symbol: str) -> Underlying:
        underlying = self._underlyings.get(symbol)
        if underlying is None:
            known = ", ".join(self._underlyings)
            raise self._error(
                location, f"there is no underlying {symbol}", f"define it, or use one of {known}"
            )
        return underlying

    def _openings(self) -> Iterator[Opening]:
        held: set[tuple[str, int]] = set()
        for index, part in enumerate(self._part.positions):
            at: Location = ("positions", index)
            quantities = self._checked_quantities(at, part)
            for offset, conid in enumerate(self._conids_of(at, part)):
                if (part.account, conid) in held:
                    raise self._error(at, f"{part.account} holds conid {conid} twice")
                held.add((part.account, conid))

                cost = part.average_cost
                yield Opening(
                    account=part.account,
                    conid=conid,
                    quantity=quantities[offset % len(quantities)],
                    average_cost=self._part.costs.get(conid) if cost is None else cost,
                )

    def _checked_quantities(self, at: Location, part: PositionPart) -> list[float]:
        """Return the quantities of a position, whose account and form are checked."""
        accounts = sorted({account.name for account in self._part.accounts})
        if part.account not in accounts:
            raise self._error(
                (*at, "account"),
                f"there is no account {part.account} in this book",
                f"use one of {', '.join(accounts)}, or add it under accounts",
            )

        quantities = part.quantities or ([] if part.quantity is None else [part.quantity])
        if not quantities or (part.quantities is not None and part.quantity is not None):
            cause = "a position has either a quantity or quantities"
            raise self._error(at, cause, "give one of them")
        return quantities

    def _conids_of(self, at: Location, part: PositionPart) -> list[int]:
        """Return the contracts of a position: one, or those of a chain."""
        if (part.conid is None) == (part.chain is None):
            cause = "a position names either a conid or a chain"
            raise self._error(at, cause, "give one of them")

        if part.conid is not None:
            self._check_known((*at, "conid"), part.conid)
            return [part.conid]

        conids = self._chains.get(part.chain or "", [])
        if not conids:
            raise self._error((*at, "chain"), f"there is no chain {part.chain}")
        return conids
