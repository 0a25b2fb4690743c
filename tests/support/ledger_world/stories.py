"""Stories: what may happen to a contract, each with its own contracts, told to a world.

Who has what is decided here. A strategy's leg, an order or a delivery says it to the program, and
where none does, as in `a_close_of_unknown_owner`, it is unknown.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from fractions import Fraction
from random import Random

from tests.support.ledger_world.bookkeeper import Shares
from tests.support.ledger_world.values import ACCOUNTS, DAYS, NOBODY, Booking, Contract, part, total
from tests.support.ledger_world.world import EVENING, Gone, World

IRON, WHEEL = "iron", "wheel"
FOG, HAZE = "fog", "haze"  # their money is not known

Story = Callable[[World], None]


def _days(world: World, count: int, first: int = 1, last: int = 9) -> list[int]:
    """Return some days in order."""
    return sorted(world.random.sample(range(first, last + 1), count))


def _account(world: World) -> str:
    return world.random.choice(ACCOUNTS)


def _names(world: World, *names: str) -> list[str]:
    """Return strategies: those of all stories, or some of their own, which come to an end."""
    if world.random.random() < 0.4:
        return [*names]
    number = world.number() % 10_000
    return [f"{name}-{number}" for name in names]


def _owner(world: World) -> str:
    [owner] = _names(world, world.random.choice((IRON, WHEEL)))
    return owner


def _side(world: World) -> int:
    return world.random.choice((1, -1))


def _stocked(world: World, owner: str, account: str, day: int, count: int = 2) -> Contract:
    """Return a stock of which an owner buys, or sells short, some at several prices on a day."""
    stock = world.stock()
    if owner != NOBODY:
        world.claim(owner, stock, 1, account=account)
    side = _side(world)
    for _n in range(count):
        world.trade(day, account, stock, {owner: side * 2 * world.random.randrange(5, 30)})
    return stock


def _sell(world: World, day: int, account: str, stock: Contract, of: Fraction) -> None:
    """Let each owner, who is the only one, close a part of what it has."""

    def happens(minute: int) -> None:
        [owner] = world.books.owners(account, stock.conid)
        held = world.books.held(owner, account, stock.conid)
        closed = Fraction(int(held * of)) or held
        world.booked_trade(day, minute, account, stock, {owner: -closed})

    world.on(day, happens)


def _close_all(world: World, day: int, account: str, contract: Contract) -> None:
    """Close all that is held: each owner has its part of it."""

    def happens(minute: int) -> None:
        held = world.books.held("", account, contract.conid)
        shares = world.books.divided(-held, account, contract.conid)
        if shares:
            world.booked_trade(day, minute, account, contract, shares)

    world.on(day, happens)


# ---- trades


def bought_and_sold_in_parts(world: World) -> None:
    """Three openings, three closes; the last one may go to the other side, or leave a rest."""
    owner = _owner(world)
    account = _account(world)
    side = _side(world)
    days = _days(world, 6)
    contract = world.stock()
    if world.random.random() < 0.5:
        contract = world.option(contract, "C", 9)
    world.claim(owner, contract, 1)
    sizes = [world.random.randrange(3, 40) for _n in range(3)]
    for day, size in zip(days, sizes, strict=False):
        world.trade(day, account, contract, {owner: side * size})
    part = sum(sizes) // 3
    last = world.random.choice((-5, 0, 7))  # left, all, beyond
    for day, size in zip(days[3:], (part, part, sum(sizes) - 2 * part + last), strict=True):
        world.trade(day, account, contract, {owner: -side * size})


def shared_by_claims(world: World) -> None:
    """Two strategies claim parts of a contract; both are closed on one day."""
    iron, wheel = _names(world, IRON, WHEEL)
    account = _account(world)
    side = _side(world)
    opened, more, closed = _days(world, 3)
    contract = world.option(world.stock(), "P", 9)
    world.claim(iron, contract, 1, account=account, quantity=side * 7)
    world.claim(wheel, contract, 1, account=account, quantity=side * 14)
    world.trade(opened, account, contract, {iron: side * 3, wheel: side * 6})
    world.trade(more, account, contract, {iron: side * 4, wheel: side * 8})
    world.trade(closed, account, contract, {iron: -side * 2, wheel: -side * 4})
    world.trade(closed, account, contract, {iron: -side * 5, wheel: -side * 10})


def closed_by_its_order(world: World) -> None:
    """One opens, then the other, and each closes, by orders with another leg of its own."""
    iron, wheel = _names(world, IRON, WHEEL)
    account = _account(world)
    side = _side(world)
    first, second, one, other = _days(world, 4)
    stock = world.stock()
    shared, of_iron, of_wheel = (world.option(stock, "C", 9) for _n in range(3))
    world.claim(iron, shared, first, account=account, quantity=side * 5)
    world.claim(wheel, shared, first, account=account, quantity=side * 3)
    world.claim(iron, of_iron, first, account=account)
    world.claim(wheel, of_wheel, first, account=account)
    for day, owner, size, leg in ((first, iron, 5, of_iron), (second, wheel, 3, of_wheel)):
        order = world.number()
        world.trade(day, account, shared, {owner: side * size}, order=order)
        world.trade(day, account, leg, {owner: -side * size}, order=order)
    # The second one closes first: the lot of the account is the first one's.
    for day, owner, size, leg in ((one, wheel, 3, of_wheel), (other, iron, 5, of_iron)):
        order = world.number()
        world.trade(day, account, shared, {owner: -side * size}, order=order)
        world.trade(day, account, leg, {owner: side * size}, order=order)


def spread_of_nobody(world: World) -> None:
    """One order opens two options; one is bought back, the other ends worthless."""
    account = _account(world)
    side = _side(world)
    opened, bought, ended = _days(world, 3)
    stock = world.stock()
    near = world.option(stock, "P", ended)
    far = world.option(stock, "P", ended)
    order = world.number()
    world.trade(opened, account, near, {NOBODY: -side * 2}, order=order)
    world.trade(opened, account, far, {NOBODY: side * 2}, order=order)
    world.trade(bought, account, near, {NOBODY: side * 2})
    _ends(world, ended, account, far, "Ep")
    world.structures.append({near.conid, far.conid})


def shares_of_nobody(world: World) -> None:
    """Shares alone: they are in lots, and in no campaign."""
    account = _account(world)
    opened, closed = _days(world, 2)
    stock = _stocked(world, NOBODY, account, opened)
    _sell(world, closed, account, stock, Fraction(1, 2) * world.random.choice((1, 2)))


def cancelled(world: World) -> None:
    """A sale is taken back and booked again at another price."""
    owner = _owner(world)
    account = _account(world)
    opened, closed = _days(world, 2)
    stock = world.stock()
    world.claim(owner, stock, 1)
    world.trade(opened, account, stock, {owner: 100})
    world.trade(opened, account, stock, {owner: 50})

    def happens(minute: int) -> None:
        wrong = world.book(
            closed, minute, account, stock, section="Trades", quantity=Fraction(-30),
            price=(price := world.price()), cash=30 * price, fee=101, side="C",
            order=world.number(),
        )  # fmt: skip
        world.bookings.append(replace(wrong, number=world.number(), quantity=Fraction(30),
                                      cash=-wrong.cash, fee=-wrong.fee, kind="TradeCancel",
                                      codes="Ca", side=""))  # fmt: skip
        world.withdrawn.add(wrong.number)
        world.positions[account, stock.conid] += 30
        world.cash[account] -= wrong.cash - wrong.fee
        world.booked_trade(closed, minute, account, stock, {owner: -30})

    world.on(closed, happens)


# ---- ends of options


def _ends(world: World, day: int, account: str, option: Contract, code: str) -> None:
    """Let an option end without value, or by a delivery: all of it."""

    def happens(minute: int) -> None:
        whole = world.books.held("", account, option.conid)
        held = world.books.divided(whole, account, option.conid)
        booked = {"kind": "BookTrade", "order": None, "fee": 0}
        ended = {owner: -size for owner, size in held.items()}
        world.booked_trade(
            day, minute, account, option, ended, price=0, codes=f"{code};C", **booked
        )
        if code == "Ep":
            return
        side = 1 if option.right == "C" else -1
        delivered = world.contracts[option.underlying]
        units = 1 if option.category == "FOP" else option.multiplier
        shares = {owner: side * units * size for owner, size in held.items()}
        world.booked_trade(
            day, minute, account, delivered, shares, price=option.strike * 100, codes=code,
            **booked,
        )  # fmt: skip

    world.on(day, happens, minute=EVENING)


def wheel_beside_shares(world: World) -> None:
    """A put is assigned beside shares of nobody, and a call takes what it brought.

    The account's lot is that of nobody, which was opened first.
    """
    [wheel] = _names(world, WHEEL)
    account = _account(world)
    sold, assigned, covered, called, out = _days(world, 5)
    stock = world.stock()
    put = world.option(stock, "P", assigned)
    call = world.option(stock, "C", called)
    world.claim(wheel, put, 1)
    world.claim(wheel, call, 1)
    world.trade(sold, account, stock, {NOBODY: 100})
    world.trade(sold, account, put, {wheel: -1})
    _ends(world, assigned, account, put, "A")
    world.trade(covered, account, call, {wheel: -1})
    _ends(world, called, account, call, "A")
    if world.random.random() < 0.5:
        world.trade(out, account, stock, {NOBODY: -100})


def wheel_of_nobody(world: World) -> None:
    """A put is assigned, a call is sold on the shares, and takes them: one structure."""
    account = _account(world)
    sold, assigned, covered, called = _days(world, 4)
    stock = world.stock()
    put = world.option(stock, "P", assigned)
    call = world.option(stock, "C", called)
    world.trade(sold, account, put, {NOBODY: -2})
    _ends(world, assigned, account, put, "A")
    world.trade(covered, account, call, {NOBODY: -2})
    _ends(world, called, account, call, "A")
    world.structures.append({stock.conid, put.conid, call.conid})


def exercised(world: World) -> None:
    """A long put is exercised: the shares are short, and bought back at two prices."""
    owner = _owner(world)
    account = _account(world)
    bought, ended, one, other = _days(world, 4)
    stock = world.stock()
    put = world.option(stock, "P", ended)
    world.claim(owner, put, 1, account=account)
    world.trade(bought, account, put, {owner: 1})
    _ends(world, ended, account, put, "Ex")
    world.trade(one, account, stock, {owner: 37})
    world.trade(other, account, stock, {owner: 63})


def rolled_by_nobody(world: World) -> None:
    """One order buys a put back and sells another one, which ends worthless: one structure."""
    account = _account(world)
    sold, rolled, ended = _days(world, 3)
    stock = world.stock()
    first = world.option(stock, "P", 9)
    second = world.option(stock, "P", ended)
    world.trade(sold, account, first, {NOBODY: -3})
    order = world.number()
    world.trade(rolled, account, first, {NOBODY: 3}, order=order)
    world.trade(rolled, account, second, {NOBODY: -3}, order=order)
    _ends(world, ended, account, second, "Ep")
    world.structures.append({first.conid, second.conid})


def settled_in_cash(world: World) -> None:
    """An option on an index ends, and its cash is paid in a row of its own."""
    owner = _owner(world)
    account = _account(world)
    side = _side(world)
    opened, ended = _days(world, 2)
    index = world.stock()
    option = world.option(index, "C", ended)
    world.claim(owner, option, 1)
    world.trade(opened, account, option, {owner: side * 3})

    def happens(minute: int) -> None:
        amount = side * world.price()
        world.booked_trade(
            ended, minute, account, option, {owner: -side * 3}, price=0, fee=0, codes="Ep;C",
            kind="BookTrade", order=None, paid_beside=amount,
        )  # fmt: skip
        paid = world.book(
            ended, minute, account, option, section="OptionEAE", kind="Cash Settlement",
            cash=amount,
        )  # fmt: skip
        world.books.pay_for_close(paid, owner)

    world.on(ended, happens, minute=EVENING)


def two_puts_of_one_day(world: World) -> None:
    """Puts of two strategies deliver the same shares on one day: the strikes say whose."""
    iron, wheel = _names(world, IRON, WHEEL)
    account = _account(world)
    sold, ended, closed = _days(world, 3)
    stock = world.stock()
    for owner, strike in ((iron, 30), (wheel, 40)):
        put = world.option(stock, "P", ended, strike)
        world.claim(owner, put, 1)
        world.trade(sold, account, put, {owner: -world.random.randrange(1, 4)})
        _ends(world, ended, account, put, "A")
    _close_all(world, closed, account, stock)


def shared_put_assigned(world: World) -> None:
    """A put that two strategies have parts of is assigned as a whole."""
    iron, wheel = _names(world, IRON, WHEEL)
    account = _account(world)
    sold, ended, closed = _days(world, 3)
    stock = world.stock()
    put = world.option(stock, "P", ended)
    world.claim(iron, put, 1, account=account, quantity=-2)
    world.claim(wheel, put, 1, account=account, quantity=-3)
    world.trade(sold, account, put, {iron: -2, wheel: -3})
    _ends(world, ended, account, put, "A")
    if world.random.random() < 0.7:
        _close_all(world, closed, account, stock)


def called_away(world: World) -> None:
    """Shares that were bought at two prices are called away in part."""
    owner = _owner(world)
    account = _account(world)
    bought, sold, ended, closed = _days(world, 4)
    stock = world.stock()
    call = world.option(stock, "C", ended)
    world.claim(owner, stock, 1)
    world.claim(owner, call, 1)
    world.trade(bought, account, stock, {owner: 60})
    world.trade(bought, account, stock, {owner: 90})
    world.trade(sold, account, call, {owner: -1})
    _ends(world, ended, account, call, "A")
    _sell(world, closed, account, stock, Fraction(world.random.choice((1, 2)), 2))


def option_on_a_future(world: World) -> None:
    """An option on a future is assigned, and its future is settled in cash later."""
    owner = _owner(world)
    account = _account(world)
    sold, ended, settled = _days(world, 3)
    future = world.future(settled)
    put = world.option(future, "P", ended)
    world.claim(owner, put, 1)
    world.trade(sold, account, put, {owner: -2})
    _ends(world, ended, account, put, "A")

    def happens(minute: int) -> None:
        world.booked_trade(
            settled, minute, account, future, {owner: -2}, fee=0, codes="Ep;C", kind="BookTrade",
            order=None,
        )  # fmt: skip

    world.on(settled, happens, minute=EVENING)


def future(world: World) -> None:
    """A future is traded, and a part of it is held."""
    owner = _owner(world)
    account = _account(world)
    side = _side(world)
    opened, closed = _days(world, 2)
    contract = world.future(9)
    world.claim(owner, contract, 1)
    world.trade(opened, account, contract, {owner: side * 5})
    world.trade(closed, account, contract, {owner: -side * 3})


# ---- corporate actions


def _action(world: World, day: int, minute: int, account: str, contract: Contract,
            quantity: Fraction, kind: str, action: int, cash: int = 0,
            **more: object) -> Booking:  # fmt: skip
    return world.book(
        day, minute, account, contract, section="CorporateActions", quantity=quantity,
        kind=kind, action=action, cash=cash, **more,
    )  # fmt: skip


def split(world: World) -> None:
    """Three shares for two, of lots at several prices; then a part is sold."""
    owner, account = world.random.choice((_owner(world), NOBODY)), _account(world)
    opened, day, closed = _days(world, 3)
    stock = _stocked(world, owner, account, opened, 3)

    def happens(minute: int) -> None:
        held = world.books.held("", account, stock.conid)
        row = _action(world, day, minute, account, stock, held / 2, "FS", world.number())
        world.books.split(row, Fraction(3, 2))

    world.on(day, happens, minute=EVENING)
    _sell(world, closed, account, stock, Fraction(2, 3))


def reverse_split(world: World) -> None:
    """One share for two, of two strategies; then all is sold."""
    iron, wheel = _names(world, IRON, WHEEL)
    account = _account(world)
    side = _side(world)
    first, second, day, closed = _days(world, 4)
    stock = world.stock()
    world.claim(iron, stock, first, account=account, quantity=side * 20)
    world.claim(wheel, stock, second, account=account, quantity=side * 14)
    world.trade(first, account, stock, {iron: side * 20})
    world.trade(second, account, stock, {wheel: side * 14})

    def happens(minute: int) -> None:
        held = world.books.held("", account, stock.conid)
        row = _action(world, day, minute, account, stock, -held / 2, "RS", world.number())
        world.books.split(row, Fraction(1, 2))

    world.on(day, happens, minute=EVENING)
    _close_all(world, closed, account, stock)


def stock_dividend(world: World) -> None:
    """Shares are paid in shares: as much cost for more of them."""
    owner, account = world.random.choice((_owner(world), NOBODY)), _account(world)
    opened, day, closed = _days(world, 3)
    stock = world.stock()
    if owner != NOBODY:
        world.claim(owner, stock, 1)
    world.trade(opened, account, stock, {owner: 40})
    world.trade(opened, account, stock, {owner: 60})

    def happens(minute: int) -> None:
        row = _action(world, day, minute, account, stock, Fraction(7), "SD", world.number())
        world.books.split(row, Fraction(107, 100))

    world.on(day, happens, minute=EVENING)
    _sell(world, closed, account, stock, Fraction(1, 2))


def adjusted_options(world: World) -> None:
    """Two calls and a put become others with other strikes, by one action."""
    iron, wheel = _names(world, IRON, WHEEL)
    account = _account(world)
    side = _side(world)
    opened, day, closed = _days(world, 3)
    stock = world.stock()
    pairs = []
    for owner, right, strike in ((iron, "C", 30), (wheel, "C", 60), (wheel, "P", 30)):
        old = world.option(stock, right, 9, strike)
        new = world.option(stock, right, 9, strike * 2 // 3, 150)
        world.claim(owner, old, 1, account=account)
        world.trade(opened, account, old, {owner: side * world.random.randrange(1, 5)})
        pairs.append((old, new))
        _close_all(world, closed, account, new)

    def happens(minute: int) -> None:
        action = world.number()
        for old, new in pairs:
            held = world.books.held("", account, old.conid)
            left = _action(world, day, minute, account, old, -held, "FS", action)
            came = _action(world, day, minute, account, new, held, "FS", action)
            world.books.replace(left, came)

    world.on(day, happens, minute=EVENING)


def _merges(world: World, day: int, account: str, old: Contract, new: Contract,
            ratio: Fraction, of: Fraction = Fraction(1), paid: int = 0) -> None:  # fmt: skip
    """Let an action take a contract for another one; of a part it pays cash."""

    def happens(minute: int) -> None:
        action = world.number()
        held = world.books.held("", account, old.conid)
        for_cash = held * (1 - of)
        if for_cash:
            shares = world.books.divided(-for_cash, account, old.conid)
            cash = int(for_cash * paid)
            row = _action(world, day, minute, account, old, -for_cash, "TC", action, cash)
            world.books.trade(row, shares, cash=Fraction(cash))
        if of:
            left = _action(world, day, minute, account, old, -held * of, "TC", action)
            came = _action(world, day, minute, account, new, held * of * ratio, "TC", action)
            world.books.replace(left, came)

    world.on(day, happens, minute=EVENING)


def merger(world: World) -> None:
    """A contract of two strategies becomes another one, which is no leg; both are sold later."""
    iron, wheel = _names(world, IRON, WHEEL)
    account = _account(world)
    side = _side(world)
    first, second, day, closed = _days(world, 4)
    old = world.stock()
    new = world.stock()
    world.claim(iron, old, first, account=account, quantity=side * 20)
    world.claim(wheel, old, second, account=account, quantity=side * 36)
    world.trade(first, account, old, {iron: side * 12})
    world.trade(first, account, old, {iron: side * 8})
    world.trade(second, account, old, {wheel: side * 36})
    _merges(world, day, account, old, new, Fraction(world.random.choice((1, 3)), 2))
    if world.random.random() < 0.7:
        _close_all(world, closed, account, new)


def mergers_of_one_day(world: World) -> None:
    """Two contracts become two others by two actions of one day and type."""
    iron, wheel = _names(world, IRON, WHEEL)
    account = _account(world)
    opened, day, closed = _days(world, 3)
    for owner in (iron, wheel):
        old = _stocked(world, owner, account, opened)
        new = world.stock()
        _merges(world, day, account, old, new, Fraction(world.random.choice((1, 2)), 2))
        _sell(world, closed, account, new, Fraction(1))


def merger_with_cash(world: World) -> None:
    """An action takes a contract for another one and some cash."""
    owner = _owner(world)
    account = _account(world)
    opened, day, closed = _days(world, 3)
    old = _stocked(world, owner, account, opened)
    _exchanges(world, day, account, old, "TC", world.price(), closed)


def rights_that_were_exercised(world: World) -> None:
    """Rights were bought, and are exercised: what is paid then is a part of the cost."""
    owner = _owner(world)
    account = _account(world)
    opened, day, closed = _days(world, 3)
    rights = world.stock()
    world.claim(owner, rights, 1)
    world.trade(opened, account, rights, {owner: 50})
    world.trade(opened, account, rights, {owner: 70})
    _exchanges(world, day, account, rights, "SR", -world.price(), closed)


def _exchanges(world: World, day: int, account: str, old: Contract, kind: str, paid: int,
               closed: int) -> None:  # fmt: skip
    """Let an action take a contract for half as much of another, with cash in the row of the old.

    What came is no leg; some of it is closed later.
    """
    new = world.stock()

    def happens(minute: int) -> None:
        action = world.number()
        held = world.books.held("", account, old.conid)
        left = _action(world, day, minute, account, old, -held, kind, action, paid)
        came = _action(world, day, minute, account, new, held / 2, kind, action)
        world.books.replace(left, came)

    world.on(day, happens, minute=EVENING)
    _sell(world, closed, account, new, Fraction(1, 2))


def prorated(world: World) -> None:
    """An election takes a part for cash and a part for another contract."""
    owner = _owner(world)
    account = _account(world)
    opened, day, closed = _days(world, 3)
    old = world.stock()
    new = world.stock()
    world.claim(owner, old, 1)
    world.trade(opened, account, old, {owner: 100})
    _merges(world, day, account, old, new, Fraction(1), Fraction(2, 5), world.price())
    _sell(world, closed, account, new, Fraction(1, 2))


def taken_over_for_cash(world: World) -> None:
    """An action takes all for cash."""
    owner = _owner(world)
    account = _account(world)
    opened, day = _days(world, 2)
    old = _stocked(world, owner, account, opened)
    _merges(world, day, account, old, old, Fraction(1), Fraction(0), world.price())


def called_in_part(world: World) -> None:
    """An action takes a part for cash, and leaves the others as they were."""
    owner = _owner(world)
    account = _account(world)
    opened, day, closed = _days(world, 3)
    stock = world.stock()
    world.claim(owner, stock, 1)
    world.trade(opened, account, stock, {owner: 100})

    def happens(minute: int) -> None:
        cash = 30 * world.price()
        row = _action(world, day, minute, account, stock, Fraction(-30), "TC", 7, cash)
        world.books.trade(row, {owner: Fraction(-30)}, cash=Fraction(cash))

    world.on(day, happens, minute=EVENING)
    _sell(world, closed, account, stock, Fraction(1, 2))


def acted_on_again_and_again(world: World) -> None:
    """A split, a merger, and the way to the other account: cost and day stay those of the lots."""
    owner = _owner(world)
    source, target = ACCOUNTS
    opened, splits, merges, goes, closed = _days(world, 5)
    old = world.stock()
    new = world.stock()
    world.claim(owner, old, 1)
    world.trade(opened, source, old, {owner: 20})
    world.trade(opened, source, old, {owner: 28})

    def happens(minute: int) -> None:
        row = _action(world, splits, minute, source, old, Fraction(24), "FS", world.number())
        world.books.split(row, Fraction(3, 2))

    world.on(splits, happens, minute=EVENING)
    _merges(world, merges, source, old, new, Fraction(1, 2))
    _goes(world, goes, new, source, target)
    _sell(world, closed, target, new, Fraction(2, 3))


def merged_into_what_is_held(world: World) -> None:
    """What was opened first closes first, also if it came later by an action."""
    owner = _owner(world)
    account = _account(world)
    first, second, day, closed = _days(world, 4)
    old = world.stock()
    new = world.stock()
    world.claim(owner, old, 1)
    world.claim(owner, new, 1)
    world.trade(first, account, old, {owner: 40})
    world.trade(second, account, new, {owner: 30})
    _merges(world, day, account, old, new, Fraction(1))
    _sell(world, closed, account, new, Fraction(1, 2))


def spin_off(world: World) -> None:
    """Shares come for nothing: what they cost is not known."""
    [fog] = _names(world, FOG)
    account = _account(world)
    opened, day, closed = _days(world, 3)
    parent = _stocked(world, fog, account, opened)
    child = world.stock()
    world.claim(fog, child, 1, account=account)

    def happens(minute: int) -> None:
        row = _action(world, day, minute, account, child, Fraction(17), "SO", world.number())
        world.books.trade(row, {fog: Fraction(17)}, cash=None)

    world.on(day, happens, minute=EVENING)
    _sell(world, closed, account, child, Fraction(1, 2))
    _sell(world, closed, account, parent, Fraction(1))
    world.lost |= {fog, parent.conid, child.conid}


# ---- transfers


def _transfer(world: World, day: int, minute: int, account: str, contract: Contract,
              quantity: Fraction, value: int | None, partner: str = "",
              way: str = "IN", left_on: date | None = None) -> Booking:  # fmt: skip
    return world.book(
        day, minute, account, contract, section="Transfers", quantity=quantity, value=value,
        kind="INTERNAL" if partner else "ACATS", partner=partner, side=way, left_on=left_on,
    )  # fmt: skip


def moved_to_the_other_account(world: World) -> None:
    """Shares that are held and shares that are short go to the other account.

    They go with owner, cost and day, also where a leg names the first account alone.
    """
    owner = _owner(world)
    source, target = ACCOUNTS
    opened, day, closed = _days(world, 3)
    for side in (1, -1):
        stock = world.stock()
        world.claim(owner, stock, 1, account=world.random.choice((None, source)))
        world.trade(opened, source, stock, {owner: side * 30})
        world.trade(opened, source, stock, {owner: side * 12})
        _goes(world, day, stock, source, target)
        _sell(world, closed, target, stock, Fraction(world.random.choice((1, 2)), 2))


def moved_in_several_rows(world: World) -> None:
    """What leaves one account in a row comes to the other one in two."""
    owner = _owner(world)
    source, target = ACCOUNTS
    opened, day, closed = _days(world, 3)
    side = _side(world)
    stock = world.stock()
    world.claim(owner, stock, 1, account=world.random.choice((None, source)))
    world.trade(opened, source, stock, {owner: side * 30})
    world.trade(opened, source, stock, {owner: side * 12})
    _goes(world, day, stock, source, target, Fraction(5, 14))
    _sell(world, closed, target, stock, Fraction(world.random.choice((1, 2)), 2))


def short_that_goes_out_alone(world: World) -> None:
    """A section of one row, OUT and without a sign: what was short was held so."""
    owner = _owner(world)
    source, target = ACCOUNTS
    opened, day, closed = _days(world, 3)
    stock = world.stock()
    world.claim(owner, stock, 1)
    world.trade(opened, source, stock, {owner: -42})
    _goes(world, day, stock, source, target)
    _sell(world, closed, target, stock, Fraction(1, 2))


def moved_in_part_without_value(world: World) -> None:
    """A part of what is held goes to the other account; nothing says what it is worth."""
    [owner] = _names(world, IRON)
    target, source = ACCOUNTS
    opened, day, closed, last = _days(world, 4)
    stock = world.stock()
    world.claim(owner, stock, 1, account=world.random.choice((None, source)))
    side = _side(world)
    world.trade(opened, source, stock, {owner: side * 30})
    world.trade(opened, source, stock, {owner: side * 12})
    _goes(world, day, stock, source, target, of=Fraction(1, 3), is_valued=False)
    _sell(world, closed, target, stock, Fraction(1))
    _sell(world, last, source, stock, Fraction(world.random.choice((1, 2)), 2))


def moved_for_days_without_value(world: World) -> None:
    """All goes, or a part, and comes on that day or later; nothing says what it is worth."""
    [owner] = _names(world, IRON)
    source, target = ACCOUNTS
    goes = world.random.randrange(2, 4)
    opened = world.random.randrange(1, goes)
    # Until it comes nothing says whose it is there: worlds that are cut are cut after four days.
    comes = world.random.randrange(goes, 5)
    closed, last = _days(world, 2, comes + 1)
    stock = world.stock()
    world.claim(owner, stock, 1, account=world.random.choice((None, source)))
    side = _side(world)
    world.trade(opened, source, stock, {owner: side * 30})
    world.trade(opened, source, stock, {owner: side * 12})
    of = Fraction(world.random.choice((1, 2)), 2)
    sent = []

    def leaves(minute: int) -> None:
        size = world.books.held("", source, stock.conid) * of
        left = _transfer(world, goes, minute, source, stock, -size, None, target, "OUT")
        sent.extend(world.books.send(left))

    def arrives(minute: int) -> None:
        came = _transfer(world, comes, minute, target, stock, side * 42 * of, None, source,
                         left_on=DAYS[goes])  # fmt: skip
        world.books.receive(came, sent)

    world.on(goes, leaves, minute=EVENING)
    world.on(comes, arrives, minute=EVENING)
    _sell(world, closed, target, stock, Fraction(1, world.random.choice((1, 2))))
    if of != 1:
        _sell(world, last, source, stock, Fraction(1, world.random.choice((1, 2))))


def moved_and_moved_back(world: World) -> None:
    """What went to the other account comes back, all of it or a part; the others are sold there."""
    owner = _owner(world)
    source, target = ACCOUNTS
    opened, goes, returns, there, closed = _days(world, 5)
    stock = world.stock()
    world.claim(owner, stock, 1, account=world.random.choice((None, source)))
    side = _side(world)
    world.trade(opened, source, stock, {owner: side * 30})
    world.trade(opened, source, stock, {owner: side * 12})
    _goes(world, goes, stock, source, target, of=Fraction(world.random.choice((2, 3)), 3))
    of = Fraction(world.random.choice((1, 2)), 2)
    _goes(world, returns, stock, target, source, of=of)
    if of != 1:
        _sell(world, there, target, stock, Fraction(1))
    _sell(world, closed, source, stock, Fraction(world.random.choice((1, 2)), 2))


def spread_of_nobody_of_which_a_part_moves(world: World) -> None:
    """One order opens two options; one of them goes to the other account, and ends there."""
    source, target = ACCOUNTS
    opened, day, bought, ended = _days(world, 4)
    near, far = (world.option(world.stock(), "P", ended) for _n in range(2))
    order = world.number()
    world.trade(opened, source, near, {NOBODY: -2}, order=order)
    world.trade(opened, source, far, {NOBODY: 2}, order=order)
    _goes(world, day, far, source, target)
    world.trade(bought, source, near, {NOBODY: 2})
    _ends(world, ended, target, far, "Ep")
    world.structures.append({near.conid, far.conid})


def _goes(
    world: World,
    day: int,
    stock: Contract,
    source: str,
    target: str,
    *parts: Fraction,
    of: Fraction = Fraction(1),
    is_valued: bool = True,
) -> None:
    """Let a part of a contract, or all, go to another account, where its parts have own rows."""

    def happens(minute: int) -> None:
        held = world.books.held("", source, stock.conid) * of
        price = world.price() if is_valued else None
        value = None if price is None else int(held) * price
        taken = None if value is None else -value
        left = _transfer(world, day, minute, source, stock, -held, taken, target, "OUT")
        came = []
        for each in (*parts, 1 - sum(parts, Fraction(0))):
            own_value = None if value is None else int(value * each)
            came.append(
                _transfer(world, day, minute, target, stock, held * each, own_value, source)
            )
        world.books.replace(left, *came)

    world.on(day, happens, minute=EVENING)


def transferred_in(world: World) -> None:
    """Shares come from another broker, with a stated value."""
    _comes(world, _owner(world), is_valued=True)


def transferred_in_without_value(world: World) -> None:
    """Shares come from another broker, and nothing says what they are worth."""
    [fog] = _names(world, FOG)
    _comes(world, fog, is_valued=False)


def _comes(world: World, owner: str, *, is_valued: bool) -> None:
    account = _account(world)
    day, closed = _days(world, 2)
    stock = world.stock()
    world.claim(owner, stock, 1)

    def happens(minute: int) -> None:
        value = 20 * world.price()
        row = _transfer(
            world, day, minute, account, stock, Fraction(20), value if is_valued else None
        )
        cash = Fraction(-value) if is_valued else None
        world.books.trade(row, {owner: Fraction(20)}, cash=cash)

    world.on(day, happens, minute=EVENING)
    _sell(world, closed, account, stock, Fraction(1, 2) * world.random.choice((1, 2)))
    if not is_valued:
        world.lost |= {owner, stock.conid}


# ---- cash


def _cash(world: World, day: int, account: str, contract: Contract, kind: str, amount: int,
          effect: str, had: Shares | None = None) -> None:  # fmt: skip
    """Let money of a contract be paid to those who have it, or had it."""

    def happens(minute: int) -> None:
        shares = had or world.books.divided(Fraction(1), account, contract.conid)
        row = world.book(
            day, minute, account, contract, section="CashTransactions", kind=kind, cash=amount
        )
        world.books.pay(row, shares, effect)

    world.on(day, happens, minute=EVENING + 60)


def dividend(world: World) -> None:
    """Two strategies have shares that pay; tax is withheld."""
    iron, wheel = _names(world, IRON, WHEEL)
    account = _account(world)
    opened, day, closed = _days(world, 3)
    stock = world.stock()
    world.claim(iron, stock, 1, account=account, quantity=30)
    world.claim(wheel, stock, 1, account=account, quantity=60)
    world.trade(opened, account, stock, {iron: 30, wheel: 60})
    _cash(world, day, account, stock, "Dividends", world.price(), "EARNS")
    _cash(world, day, account, stock, "Withholding Tax", -world.price() // 9, "EARNS")
    _close_all(world, closed, account, stock)


def adjusted_commission(world: World) -> None:
    """A commission is corrected later: money of what was traded."""
    owner = _owner(world)
    account = _account(world)
    opened, day, closed, late = _days(world, 4)
    stock = _stocked(world, owner, account, opened)
    _cash(world, day, account, stock, "Commission Adjustments", world.price(), "PAYS")
    _sell(world, closed, account, stock, Fraction(1, world.random.choice((1, 2))))
    shares = {owner: Fraction(1)}
    _cash(world, late, account, stock, "Commission Adjustments", world.price(), "PAYS", shares)


def adjusted_commission_of_a_trade(world: World) -> None:
    """The broker's words name the trade whose commission it corrects: it is cost of that one."""
    owner = _owner(world)
    account = _account(world)
    side = _side(world)
    opened, day, closed = _days(world, 3)
    stock = world.stock()
    world.claim(owner, stock, 1)
    world.trade(opened, account, stock, {owner: side * 20})
    order = world.number()
    world.trade(opened, account, stock, {owner: side * 30}, order=order)

    def happens(minute: int) -> None:
        [trade] = [each for each in world.bookings if each.order == order]
        row = world.book(
            day, minute, account, stock, section="CashTransactions", kind="Commission Adjustments",
            cash=world.price(), words=f"Refund ({stock.symbol}, 30, {trade.day})",
        )  # fmt: skip
        world.books.adjust(row, owner, trade)

    world.on(day, happens, minute=EVENING + 60)
    _sell(world, closed, account, stock, Fraction(1, world.random.choice((1, 2))))


def paid_after_it_was_sold(world: World) -> None:
    """A dividend of what two strategies had, and have not any more."""
    iron, wheel = _names(world, IRON, WHEEL)
    account = _account(world)
    opened, closed, day = _days(world, 3)
    stock = world.stock()
    world.claim(iron, stock, 1, account=account, quantity=20)
    world.claim(wheel, stock, 1, account=account, quantity=60)
    world.trade(opened, account, stock, {iron: 20, wheel: 60})
    _close_all(world, closed, account, stock)
    had = {iron: Fraction(20), wheel: Fraction(60)}
    _cash(world, day, account, stock, "Payment In Lieu Of Dividends", world.price(), "EARNS", had)


def money_of_accounts(world: World) -> None:
    """Interest is paid, and the owner brings and takes cash."""
    for account in ACCOUNTS:
        for kind, amount in (
            ("Broker Interest Received", world.price()),
            ("Broker Interest Paid", -world.price()),
            ("Deposits/Withdrawals", world.price() * world.random.choice((1, -1))),
        ):
            [day] = _days(world, 1)

            def happens(
                minute: int, account: str = account, day: int = day, kind: str = kind,
                amount: int = amount,
            ) -> None:  # fmt: skip
                row = world.book(
                    day, minute, account, None, section="CashTransactions", kind=kind, cash=amount
                )
                if kind.startswith("Broker"):
                    world.books.earn(row, NOBODY)

            world.on(day, happens, minute=EVENING + 90)


# ---- openings, and what is not known


def held_before(world: World) -> None:
    """Something was held before everything, at a cost that Open Positions state."""
    owner = _owner(world)
    account = _account(world)
    side = _side(world)
    more, closed = _days(world, 2)
    stock = world.stock()
    world.claim(owner, stock, 0)
    _hold_before(world, account, stock, {owner: side * 24})
    world.trade(more, account, stock, {owner: side * 6})
    _sell(world, closed, account, stock, Fraction(2, 3))


def held_before_beside_a_trade(world: World) -> None:
    """Something is bought and sold before what was held from the beginning moves."""
    [owner] = _names(world, IRON)
    account = _account(world)
    bought, sold, moved = _days(world, 3)
    before = world.stock()
    other = world.stock()
    world.claim(owner, before, 0)
    world.claim(owner, other, 1)
    _hold_before(world, account, before, {owner: 24})
    world.trade(bought, account, other, {owner: 10})
    _sell(world, sold, account, other, Fraction(1))
    _sell(world, moved, account, before, Fraction(1, world.random.choice((1, 2))))


def held_before_by_two(world: World) -> None:
    """An option that two strategies claim was held before everything, and ends worthless."""
    iron, wheel = _names(world, IRON, WHEEL)
    account = _account(world)
    side = _side(world)
    [ended] = _days(world, 1)
    option = world.option(world.stock(), "C", ended)
    world.claim(iron, option, 0, account=account, quantity=side * 4)
    world.claim(wheel, option, 0, account=account, quantity=side * 8)
    _hold_before(world, account, option, {iron: side * 4, wheel: side * 8})
    _ends(world, ended, account, option, "Ep")


def claimed_in_both_accounts(world: World) -> None:
    """A claim that names no account counts in each by its part of what all hold."""
    owner = _owner(world)
    side = _side(world)
    first, second = ACCOUNTS
    one, other, closed = _days(world, 3)
    contract = world.option(world.stock(), "P", 9)
    world.claim(owner, contract, 1, quantity=side * 20)
    world.trade(one, first, contract, {owner: side * 12})

    def happens(minute: int) -> None:
        claimed = Fraction(side * 20 * 24, 36)
        shares = {owner: claimed, NOBODY: side * 24 - claimed}
        world.booked_trade(other, minute, second, contract, shares)

    world.on(other, happens)
    _close_all(world, closed, second, contract)
    world.structures.append({contract.conid})


def held_before_without_cost(world: World) -> None:
    """Nothing says what it cost that was held before everything."""
    [fog] = _names(world, FOG)
    account = _account(world)
    side = _side(world)
    [closed] = _days(world, 1)
    stock = world.stock()
    world.claim(fog, stock, 0)
    _hold_before(world, account, stock, {fog: side * 24}, is_cost_stated=False)
    _sell(world, closed, account, stock, Fraction(1, world.random.choice((1, 2))))
    world.lost |= {fog, stock.conid}


def held_before_and_gone(world: World) -> None:
    """An option was held before everything, and is gone without a cause."""
    [fog] = _names(world, FOG)
    account = _account(world)
    side = _side(world)
    [day] = _days(world, 1)
    option = world.option(world.stock(), "P", 9)
    world.claim(fog, option, 0)
    _stocked(world, NOBODY, account, 1)
    _hold_before(world, account, option, {fog: side * 2})
    _vanishes(world, day, account, option)
    world.lost |= {fog, option.conid}


def gone_and_traded_again(world: World) -> None:
    """An option is gone without a cause; the opposite of it is opened later, and perhaps closed."""
    [fog] = _names(world, FOG)
    account = _account(world)
    side = _side(world)
    day, opened, closed = _days(world, 3)
    option = world.option(world.stock(), "P", 9)
    world.claim(fog, option, 0)
    _stocked(world, NOBODY, account, 1)
    _hold_before(world, account, option, {fog: side * 2})
    _vanishes(world, day, account, option)
    world.trade(opened, account, option, {fog: -side * 2})
    if world.random.random() < 0.4:
        world.trade(closed, account, option, {fog: side * 2})
    world.lost |= {fog, option.conid}


def of_unknown_quantity(world: World) -> None:
    """A row does not say how much an action took: what is closed later is not known, also anew."""
    [fog] = _names(world, FOG)
    account = _account(world)
    side = _side(world)
    opened, acts, closed, again, ended = _days(world, 5)
    stock = world.stock()
    world.claim(fog, stock, 1)
    world.trade(opened, account, stock, {fog: side * 20})

    def happens(minute: int) -> None:
        row = _action(world, acts, minute, account, stock, Fraction(0), "TC", world.number(),
                      is_quantity_stated=False)  # fmt: skip
        world.books.lose(row)

    world.on(acts, happens, minute=EVENING)
    world.trade(closed, account, stock, {fog: -side * 20})
    world.trade(again, account, stock, {fog: side * 30})
    _sell(world, ended, account, stock, Fraction(1, world.random.choice((1, 2))))
    world.lost |= {fog, stock.conid}


def without_commission(world: World) -> None:
    """No source says the commission of a trade: its money is not known, that of others is."""
    [fog] = _names(world, FOG)
    account = _account(world)
    side = _side(world)
    first, second, closed = _days(world, 3)
    stock = world.stock()
    world.claim(fog, stock, 1)
    world.trade(first, account, stock, {fog: side * 10})
    world.trade(second, account, stock, {fog: side * 20}, is_fee_stated=False)
    world.trade(closed, account, stock, {fog: -side * 5})
    world.trade(closed, account, stock, {fog: -side * 15})
    world.lost |= {fog, stock.conid}


def _hold_before(
    world: World,
    account: str,
    contract: Contract,
    shares: dict[str, int],
    *,
    is_cost_stated: bool = True,
) -> None:
    def happens(minute: int) -> None:
        name = f"prior:{account}:{contract.conid}"
        exact = {owner: Fraction(quantity) for owner, quantity in shares.items()}
        held = sum(exact.values(), Fraction(0))
        cash = -held * world.price() * contract.multiplier
        row = world.book(0, minute, account, contract, section="", quantity=held)
        world.bookings.remove(row)
        known_cash = cash if is_cost_stated else None
        world.books.trade(row, exact, cash=known_cash, name=name)

    world.on(0, happens)


def a_close_of_unknown_owner(world: World) -> None:
    """A part of what two strategies have is sold, and nothing says whose; then all the others."""
    fog, haze = _names(world, FOG, HAZE)
    account = _account(world)
    side = _side(world)
    first, second, unclear, closed = _days(world, 4)
    contract = world.option(world.stock(), "C", 9)
    world.claim(fog, contract, first, account=account, quantity=side * 6)
    world.claim(haze, contract, second, account=account, quantity=side * 9)
    world.trade(first, account, contract, {fog: side * 6})
    world.trade(second, account, contract, {haze: side * 9})
    world.trade(unclear, account, contract, {fog: -side * 2, haze: -side * 3}, is_unclear=True)
    if world.random.random() < 0.6:
        _close_all(world, closed, account, contract)
    world.lost |= {fog, haze, contract.conid}


def gone(world: World) -> None:
    """A position is not there any more, and no statement says why."""
    [fog] = _names(world, FOG)
    account = _account(world)
    side = _side(world)
    opened, day = _days(world, 2)
    option = world.option(world.stock(), "C", 9)
    world.claim(fog, option, 1)
    _stocked(world, NOBODY, account, 1)  # an account without anything has no row of a day
    world.trade(opened, account, option, {fog: side * 3})
    _vanishes(world, day, account, option)
    world.lost |= {fog, option.conid}


def ends_late(world: World) -> None:
    """An option ends worthless, and its statement may come late."""
    _ends(world, *_option_of_fog(world), "Ep")


def ends_unseen(world: World) -> None:
    """The same, before the statement says it."""
    _vanishes(world, *_option_of_fog(world))


def _option_of_fog(world: World) -> tuple[int, str, Contract]:
    for account in ACCOUNTS:
        _stocked(world, NOBODY, account, 1)  # what is flat may have no row
    account = _account(world)
    opened, day = _days(world, 2)
    option = world.option(world.stock(), "C", day)
    world.claim(FOG, option, 1)
    world.trade(opened, account, option, {FOG: _side(world) * 3})
    return day, account, option


def _vanishes(world: World, day: int, account: str, option: Contract) -> None:
    """Let an option of one owner be gone; no row of the broker says it."""

    def happens(minute: int) -> None:
        [owner] = world.books.owners(account, option.conid)
        held = world.books.held(owner, account, option.conid)
        brought = total(*(parcel.money for parcel in world.books.queues["", account, option.conid]))
        row = world.book(day, minute, account, option, section="Gone", quantity=-held)
        world.bookings.remove(row)
        name = f"gone:{account}:{option.conid}"
        world.books.trade(row, {owner: -held}, cash=None, name=name)
        cost = part(brought, Fraction(-1))
        world.gone.append(
            Gone(account=account, contract=option, quantity=held, cost=cost, booking=row)
        )

    world.on(day, happens, minute=EVENING)


def came_unseen(world: World) -> None:
    """More is held than was bought, and no row says why; then all of it is sold, or more."""
    [fog] = _names(world, FOG)
    account = _account(world)
    side = _side(world)
    bought, came, sold = _days(world, 3)
    stock = world.stock()
    world.claim(fog, stock, 1)
    world.trade(bought, account, stock, {fog: side * 30})
    _appears(world, came, account, stock, {fog: side * 20})
    world.trade(sold, account, stock, {fog: -side * world.random.choice((40, 50, 60))})
    world.lost |= {fog, stock.conid}


def _appears(
    world: World, day: int, account: str, contract: Contract, shares: dict[str, int]
) -> None:
    """Let something be held more; no row of the broker says it, but Open Positions do."""

    def happens(minute: int) -> None:
        exact = {owner: Fraction(quantity) for owner, quantity in shares.items()}
        by = sum(exact.values(), Fraction(0))
        row = world.book(day, minute, account, contract, section="Gone", quantity=by)
        world.bookings.remove(row)
        world.books.trade(row, exact, cash=None, name=f"gone:{account}:{contract.conid}")

    world.on(day, happens, minute=EVENING)


STORIES: tuple[Story, ...] = (
    bought_and_sold_in_parts, shared_by_claims, closed_by_its_order, spread_of_nobody,
    rolled_by_nobody, shares_of_nobody, cancelled, wheel_beside_shares, wheel_of_nobody,
    exercised, settled_in_cash, two_puts_of_one_day, shared_put_assigned, called_away,
    option_on_a_future, future, split, reverse_split, stock_dividend, adjusted_options, merger,
    mergers_of_one_day, merger_with_cash, rights_that_were_exercised, prorated,
    taken_over_for_cash, called_in_part, acted_on_again_and_again, merged_into_what_is_held,
    spin_off, moved_to_the_other_account, short_that_goes_out_alone, transferred_in,
    transferred_in_without_value, dividend,
    paid_after_it_was_sold, adjusted_commission, money_of_accounts, held_before,
    held_before_beside_a_trade, held_before_by_two, held_before_without_cost,
    held_before_and_gone, without_commission, claimed_in_both_accounts, a_close_of_unknown_owner,
    gone, moved_in_part_without_value, spread_of_nobody_of_which_a_part_moves,
    gone_and_traded_again, of_unknown_quantity, moved_in_several_rows,
    adjusted_commission_of_a_trade, moved_and_moved_back,
    moved_for_days_without_value, came_unseen,
)  # fmt: skip


def told(
    seed: int, stories: Iterable[Story] = STORIES, *, days: int = len(DAYS), is_open: bool = False
) -> World:
    """Return the world in which some stories happened, until a day, as `World.run` says."""
    world = World(random=Random(seed))
    for story in stories:
        story(world)
    return world.run(days, is_open=is_open)
