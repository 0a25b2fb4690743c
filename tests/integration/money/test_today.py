"""The profit of the day: the account's own number, and the holdings behind it."""

from contextlib import suppress

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.money.reports.figures import Figures, read_figures
from position_sync_dagster.money.stream_parts import with_money
from tests.support.booked_legs import CALL, STOCK, WORTHLESS, A, book_of_one_account, terms_of
from tests.support.streams import Service, eventually, settings_for, simulate

SHORT_PUT = 921000002
CORN = 921000004
NEXT = 921000007


async def test_closes_a_roll_and_an_assignment_leave_no_gap_in_the_profit_of_the_day(lake):
    """Each holding was held over night at another price than its cost, or opened today."""
    quick = {"pnl_interval_s": 0.1, "refresh_interval_s": 0.1, "tick_interval_s": 3600}
    book = book_of_one_account()  # its subscription stays open
    async with simulate(book, **quick) as sim:
        usual = {"strategy_id": "all", "added_at": utc_now()}
        conids = (CALL, SHORT_PUT, WORTHLESS, CORN, STOCK, NEXT)
        legs = [make_leg(conid=conid, **usual, **terms_of(conid)) for conid in conids]
        lake.registry.sync.add_many(legs)
        service = Service(lake, settings_for(sim), complete=with_money)

        def read() -> Figures:
            return read_figures(lake, service.settings, utc_now())

        def today(figures: Figures):
            return next(account["today"] for account in figures.accounts if account["account"] == A)

        def adds_up(closed: set[int]) -> bool:
            with suppress(StopIteration):
                figures = read()
                read_profits = today(figures)
                names = set(figures.closed_today.filter(account=A).get_column("conid"))
                whole = read_profits.open_unknown == 0 and abs(read_profits.unexplained) < 0.05
                is_newer = bool(read_profits.closed) == bool(
                    closed
                )  # the bridge has the closes too
                known = not figures.closed_today["today"].null_count()
                return names == closed and whole and is_newer and known
            return False

        await eventually(lambda: adds_up(set()), told=lambda: today(read()))
        sim.fill(A, CALL, -2.0, price=31.0)  # a part of it
        sim.fill(A, CORN, -2.0, price=0.31)
        sim.roll(A, CALL, NEXT)
        sim.assign(A, SHORT_PUT)
        sim.fill(A, NEXT, -3.0, price=25.0)  # opened and closed today
        gone = {CALL, CORN, SHORT_PUT, NEXT}
        await eventually(lambda: adds_up(gone), told=lambda: today(read()))
        profits = today(read())
        parts = (profits.open, profits.closed, profits.cash, profits.unexplained)
        assert profits.account == round(sum(parts), 2)
        assert abs(profits.closed) > 1

        sim.pin_quote(STOCK, bid=150.0, ask=150.0, mark=150.0)

        def follows() -> bool:
            """The parts are of one moment, also while rows and the account's number come apart."""
            moved = today(read())
            assert moved.account == round(moved.open + moved.closed + moved.unexplained, 2)
            return abs(moved.account - profits.account) > 100 and abs(moved.unexplained) < 0.05

        await eventually(follows)
        await service.end()
