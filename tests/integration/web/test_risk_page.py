"""The risk page in headless Chromium, over a condor, a box, and a leg that cannot be priced."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.risk.priced_legs import PricedLegs
from position_sync_dagster.settings import Settings
from position_sync_dagster.web import turns
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.web.test_figures import row
from tests.integration.web.test_pages import element, texts, violations
from tests.support.browser import MISSING, Page, is_installed, open_page
from tests.support.demo_program import wait_for
from tests.support.empty_lakes import put_tables
from tests.support.legs import leg
from tests.support.receiver import serving_pages

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

EXPIRY = exchange_date(datetime.now(UTC)) + timedelta(days=40)

# Strategy, symbol, right, strike, contracts, cost of one unit, volatility.
LEGS = """
    condor  SPY  PUT   570  -1  5    0.2
    condor  SPY  PUT   550   1  3    0.22
    condor  SPY  CALL  630  -1  4    0.18
    condor  SPY  CALL  650   1  2    0.17
    sure    SPY  PUT   500   1  1    0.25
    sure    SPY  PUT   490  -1  1.5  0.25
    dark    SPY  CALL  700  -1  1    -
    other   QQQ  PUT   590  -6  6    0.2
"""


def add_leg(lake: MoneyLake, conid: int, line: str) -> PositionUpdate:
    """Make a leg active; return the row of what is held of it."""
    strategy, symbol, right, *numbers, volatility = line.split()
    strike, quantity, cost = map(float, numbers)
    terms = dict(symbol=symbol, right=Right[right], strike=strike, expiry=EXPIRY)
    lake.registry.sync.add_many([leg(conid, strategy, quantity=quantity, **terms)])
    return row(
        conid, **terms, position=quantity, multiplier=100.0, average_cost=100 * cost,
        market_price=cost, market_value=100 * cost * quantity, unrealized_pnl=0.0,
        underlying_price=600.0, account="U1",
        implied_vol=None if volatility == "-" else float(volatility),
    )  # fmt: skip


class BusyFigures(PageFigures):
    """Figures of a busy machine: answers about risk wait."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.may_answer = Event()
        self.may_answer.set()

    def risk(self, now: datetime) -> tuple[Book, PricedLegs]:
        assert self.may_answer.wait(60)
        return super().risk(now)


@pytest.fixture(scope="module")
def busy(tmp_path_factory) -> BusyFigures:
    home = tmp_path_factory.mktemp("risk")
    put_tables(home / "lake")
    settings = Settings(lake=str(home / "lake"), strategies_file=home / "strategies.yaml")
    (home / "scenarios.yaml").write_text("betas: {SPY: 0.5, QQQ: 0.5}\n")
    lake = MoneyLake.of(settings)
    rows = [add_leg(lake, conid, line) for conid, line in enumerate(LEGS.strip().splitlines(), 1)]
    lake.updates.sync.append(rows)
    return BusyFigures(settings)


@pytest.fixture(scope="module")
def page(busy) -> Iterator[Page]:
    with serving_pages(busy) as port, open_page(port) as opened:
        yield opened


def show(page: Page, query: str, size: tuple[int, int] = (1440, 900)) -> None:
    page.open(f"/money/risk{query}", size=size)
    wait_for("the curves", lambda: "next expiry" in page.text(), told=page.text)
    wait_for("names", lambda: page.driver.find_elements("css selector", "#scope optgroup"))


def reading(page: Page) -> str:
    return element(page, "#payoffs .reading").text


def test_the_payoff_of_a_condor_is_drawn_and_read_by_keys_and_its_table_has_the_numbers(page):
    show(page, "?strategy=condor")
    facts = element(page, "#payoffs dl").text.replace("\n", " ")
    assert "break-even 566.00, 634.00" in facts
    assert "greatest profit 400" in facts
    assert "greatest loss −1,600" in facts
    assert f"at expiry {EXPIRY} 400" in reading(page)

    chart = element(page, "#payoffs .canvas")
    chart.send_keys(Keys.END)
    assert "−1,600" in chart.get_attribute("aria-valuetext")
    assert chart.get_attribute("aria-valuenow") == chart.get_attribute("aria-valuemax")
    element(page, "#payoffs summary").click()
    cells = page.driver.find_elements("css selector", "#payoffs details tbody tr:last-child td")
    assert cells[1].text == "−1,600"


def test_day_and_volatility_are_chosen_by_sliders_and_stand_in_the_address(page):
    show(page, "?strategy=condor")
    element(page, "#days").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    element(page, "#vol").send_keys(Keys.ARROW_RIGHT)
    said = "in 2 days, volatility +1 points"
    wait_for("the curve of that day", lambda: said in reading(page), told=lambda: reading(page))
    assert element(page, "#chosen-day").text == said
    assert page.driver.current_url.endswith("?strategy=condor&days=2&vol=1")
    command = element(page, "#payoff-command button").get_attribute("title")
    assert "position-sync what-if --strategy condor --days 2 --vol 1" in command
    wait_for("the matrix", lambda: len(texts(page, "#matrices td")) == 45)
    assert "–" not in texts(page, "#matrices td")


def test_a_profit_is_no_greatest_loss_and_what_cannot_be_priced_is_named_and_not_drawn(page):
    show(page, "?strategy=sure")
    assert "no loss at expiry: at least" in element(page, "#payoffs dl").text
    assert "greatest loss" not in page.text()
    Select(element(page, "#scope")).select_by_visible_text("dark")
    why = "SPY 700C"
    wait_for("the other strategy", lambda: why in element(page, "#payoffs .remark").text)
    assert "its implied volatility is not known" in element(page, "#payoffs .remark").text
    assert [line.text for line in page.driver.find_elements("css selector", "#payoffs .legend span")
            ] == [f"at expiry {EXPIRY}"]  # fmt: skip
    wait_for("its matrix", lambda: {*texts(page, "#matrices td")} == {"–"})


def test_a_trade_that_is_thought_of_shows_the_book_before_and_after_and_a_wrong_one_what_is_wrong(
    page,
):
    show(page, "?strategy=condor")
    field = element(page, "#trade")
    field.send_keys("sell something")
    field.submit()
    wait_for("the error", lambda: "is no trade" in element(page, "#what-if .asked").text)
    field.clear()
    field.send_keys(f"1 SPY {EXPIRY:%Y%m%d} C 630 @2")
    field.submit()
    after = "at expiry after the trades"
    wait_for("the curve after", lambda: after in reading(page), told=lambda: reading(page))
    wait_for("the books", lambda: "condor" in element(page, "#compared").text)
    assert element(page, "#what-if .asked").text == ""

    notes = element(page, "#trades-notes").text
    assert ": 200 USD against the mark" in notes
    assert element(page, "#compared td:last-child").text == "200"
    # The put spread loses 2,000, and the call that was sold at 4 is bought back at 2.
    assert "condor SPY at expiry: at best unbounded, at worst −1,800" in notes
    wait_for("axe finds nothing", lambda: violations(page) == [], told=lambda: violations(page))

    # Below a trade that is refused stands nothing of the one before.
    field.clear()
    field.send_keys("sell something")
    field.submit()
    wait_for("the error again", lambda: "is no trade" in element(page, "#what-if .asked").text)
    assert element(page, "#trades-notes").text == ""
    assert not element(page, "#compared").is_displayed()
    assert not element(page, "#trades-command").is_displayed()
    page.button("Without the trades")
    wait_for("the curve before", lambda: after not in reading(page))


def test_on_a_phone_nothing_is_wider_than_the_screen_and_charts_that_are_gone_are_freed(page):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    show(page, "?strategy=condor", size=(500, 844))
    for name in ("dark", "sure", "condor"):
        page.driver.execute_script("arguments[0].scrollIntoView()", element(page, "#scope"))
        Select(element(page, "#scope")).select_by_visible_text(name)
        wait_for("it", lambda name=name: name in element(page, "#payoff-title").text)
        wait_for("its curve", lambda name=name: len(canvases(page)) == 2)
    assert page.driver.execute_script(
        "return [document.documentElement.scrollWidth, innerWidth]"
    ) == [390, 390]
    wait_for("axe finds nothing", lambda: violations(page) == [], told=lambda: violations(page))
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def canvases(page: Page) -> list[WebElement]:
    return page.driver.find_elements("css selector", "canvas")


def test_a_line_of_the_scenarios_chooses_what_is_drawn_and_an_unknown_name_is_said(page):
    show(page, "?strategy=condor")
    page.click("//table[@id='recorded-table']//button[text()='sure']")
    wait_for("it", lambda: element(page, "#payoff-title").text.endswith(": sure"))
    wait_for("its time", lambda: element(page, "#computed").text.startswith("priced "))
    page.open("/money/risk?strategy=iron-condr-1")
    wait_for(
        "why", lambda: "no active strategy 'iron-condr-1'" in element(page, "#payoff .asked").text
    )


def test_heading_and_picture_change_together_and_a_panel_that_waits_says_so_and_gets_an_answer(
    page, busy
):
    show(page, "?strategy=condor")
    drawn = element(page, "#payoffs").text
    wait_for("all panels", lambda: not page.driver.find_elements("css selector", "[aria-busy]"))

    busy.may_answer.clear()
    for name in ("sure", "dark"):
        Select(element(page, "#scope")).select_by_visible_text(name)
        wait_for("it waits", lambda: element(page, "#payoff").get_attribute("aria-busy") == "true")
        assert element(page, "#payoff .asked").text == "computing …"
        assert element(page, "#payoff-title").text == "Profit over the price: condor"
        assert element(page, "#payoff-command").text.startswith(
            "position-sync what-if --strategy condor"
        )
        assert element(page, "#payoffs").text == drawn
        colour = element(page, "#payoffs h3").value_of_css_property("color")
        assert colour == element(page, "#computed").value_of_css_property("color"), "it is dimmed"

    page.driver.execute_script(
        "window.titles = []; new MutationObserver(() => titles.push(document.querySelector("
        "'#payoff-title').innerText)).observe(document.querySelector('#payoff-title'), "
        "{childList: true, characterData: true, subtree: true})"
    )
    busy.may_answer.set()
    title = "Profit over the price: dark"
    wait_for("the answer", lambda: element(page, "#payoff-title").text == title, told=page.text)
    assert "SPY 700C" in element(page, "#payoffs .remark").text
    wait_for("all panels", lambda: not page.driver.find_elements("css selector", "[aria-busy]"))
    assert page.driver.execute_script("return titles") == [title], "nobody asks for sure any more"

    element(page, "#trade").send_keys(f"1 SPY {EXPIRY:%Y%m%d} C 630 @2")
    busy.may_answer.clear()
    page.button("Show before and after")
    wait_for("a sign", lambda: element(page, "#what-if .asked").text == "computing …")
    busy.may_answer.set()
    wait_for("the books", lambda: element(page, "#compared").is_displayed(), told=page.text)
    assert element(page, "#what-if .asked").text == ""


def test_a_busy_server_is_said_and_asked_again(page, busy, monkeypatch):
    show(page, "?strategy=condor")
    wait_for("all panels", lambda: not page.driver.find_elements("css selector", "[aria-busy]"))
    monkeypatch.setattr(turns, "LONGEST_WAIT_S", 0.01)
    busy.may_answer.clear()
    Select(element(page, "#scope")).select_by_visible_text("sure")
    said = "The server is busy with other large questions. It is asked again in 5 s."
    wait_for("a panel that says so", lambda: said in page.text(), told=page.text)
    assert "does not answer" not in page.text()
    monkeypatch.undo()
    busy.may_answer.set()
    wait_for(
        "the answers",
        lambda: said not in page.text() and "sure" in element(page, "#payoff-title").text,
    )
    wait_for("all panels", lambda: not page.driver.find_elements("css selector", "[aria-busy]"))


def test_it_opens_on_the_account_in_one_picture_with_the_trade_beside_it_and_no_hole(page):
    """Profit over a move of the market: the numbers of the matrix, and by betas where there are."""
    show(page, "")
    percent, by_beta = "all by the same percent", "each by its beta"
    wait_for("both lines", lambda: texts(page, "#markets .legend span") == [percent, by_beta])
    wait_for("the matrix", lambda: len(texts(page, "#matrices td")) == 45)
    assert texts(page, "#markets .remark") == ["1 of 8 legs cannot be priced and are left out."]

    chart = element(page, "#markets .canvas")
    chart.send_keys(Keys.END)
    read = chart.get_attribute("aria-valuetext")
    row = [text.removesuffix("*") for text in texts(page, "#matrices tbody tr:nth-child(3) td")]
    assert f"+20 %: {percent} {row[-1]} · {by_beta} {row[-2]}" in read, "a beta of a half"

    panels = ("#market", "#what-if")
    picture, trade = (page.driver.execute_script(RECTANGLE, panel) for panel in panels)
    assert picture["top"] == trade["top"]
    assert trade["left"] > picture["right"]
    assert trade["bottom"] < 900, "on the first screen"
    assert max(page.driver.execute_script(EMPTY)) < 150


RECTANGLE = "return document.querySelector(arguments[0]).getBoundingClientRect()"

# How much of each panel is empty below what it has.
EMPTY = """
const bottomOf = node => node.getBoundingClientRect().bottom;
return [...document.querySelectorAll('.column > .panel')].map(panel =>
  bottomOf(panel) - Math.max(...[...panel.querySelectorAll('.body > *')].map(bottomOf)));
"""


def test_a_trade_is_in_the_picture_of_the_account_before_and_after(page):
    show(page, "")
    element(page, "#trade").send_keys(f"1 SPY {EXPIRY:%Y%m%d} C 630 @2")
    page.button("Show before and after")
    after = "after the trades"
    wait_for("the account after", lambda: after in texts(page, "#markets .legend span"))
    assert f"{after} 200" in element(page, "#markets .reading").text.replace("0 ·", "0"), "it gives"
    page.button("Without the trades")
    wait_for("the account", lambda: after not in texts(page, "#markets .legend span"))


def test_one_underlying_is_drawn_at_a_time_and_buttons_lead_to_each_other_one(page):
    show(page, "")
    wait_for("its place", lambda: texts(page, "#curve-place") == ["1 of 2"])
    assert texts(page, "#payoffs h3") == texts(page, "#greek-charts h3") == ["QQQ USD U1"]
    element(page, "#curve-after").click()
    wait_for("the other one", lambda: texts(page, "#payoffs h3") == ["SPY USD U1"])
    assert texts(page, "#curve-place") == ["2 of 2"]
    assert texts(page, "#greek-charts h3") == ["SPY USD U1"]
    element(page, "#curve-after").click()
    wait_for("the first one", lambda: texts(page, "#payoffs h3") == ["QQQ USD U1"])


CURVES = """
const done = arguments[1];
fetch('/api/v1/curve?' + arguments[0]).then(answer => answer.json()).then(
  ({ keys, curves }) => done([keys, curves.map(curve => curve.underlying)]));
"""
ASKED = """
return performance.getEntriesByType('resource').map(({ name }) => name)
  .filter(name => name.includes('/curve?') && !name.includes('only='));
"""


def test_only_the_curve_that_is_drawn_is_computed(page):
    show(page, "")
    wait_for("its place", lambda: texts(page, "#curve-place") == ["1 of 2"])
    assert not page.driver.execute_script(ASKED)

    def of(query: str) -> list[list[str]]:
        answer: list[list[str]] = page.driver.execute_async_script(CURVES, query)
        return answer

    keys = ["U1|USD|QQQ", "U1|USD|SPY"]
    assert of("") == [keys, ["QQQ", "SPY"]]
    assert of("only=U1|USD|SPY") == [keys, ["SPY"]]
    assert of("only=gone") == [keys, ["QQQ"]]


SEEN = """
const {Panel} = await import('/money/app/panel.js');
return [new Panel('assignments').isSeen(), new Panel('what-if').isSeen()];
"""


def test_only_what_can_be_seen_is_asked_for_again_and_the_matrix_says_what_it_is_of(page):
    show(page, "?strategy=condor")
    wait_for("the matrix", lambda: texts(page, ".matrix caption"))
    assert element(page, ".matrix caption").text.startswith("condor · U1 USD")
    days = (EXPIRY - exchange_date(datetime.now(UTC))).days
    assert f"{EXPIRY}, {days} d" in element(page, "#payoffs dl").text, "as the book counts them"

    def seen() -> list[bool]:
        answer: list[bool] = page.driver.execute_script(f"return (async () => {{{SEEN}}})()")
        return answer

    assert seen() == [False, True]

    def is_seen_alone() -> bool:
        """Return whether it is, once what stands below it has its room."""
        page.driver.execute_script("document.querySelector('#assignments').scrollIntoView()")
        return seen() == [True, False]

    wait_for("what is assigned alone", is_seen_alone, told=seen)


def test_legs_are_listed_by_expiry_and_strike(page):
    show(page, "?strategy=condor")
    [legs] = [text for text in texts(page, "#payoffs dl div") if text.startswith("legs")]
    words = [leg.split() for leg in legs.removeprefix("legs").split(", ")]
    assert [quantity for quantity, *_ in words][:2] == ["+1", "−1"]
    assert [leg[2] for leg in words] == ["550P", "570P", "630C", "650C"]


EXPIRING = """
const {drawAssignments} = await import('/money/app/assignments_panel.js');
const row = n => ({expires_at: '2026-12-04T16:00', strategy_id: `s${n}`, leg: 'SPY 600P 04Dec26',
  position: -1, units: 100, cash: -60000});
const expiries = Array.from({length: 300}, (_, n) => row(n));
drawAssignments({expiries, early_assignments: [], not_judged: [], undated: []}, 7, () => true);
const rows = [...document.querySelectorAll('#ending tbody tr')];
return [rows.length, rows.at(-1).innerText.trim()];
"""


def test_what_expires_of_a_large_book_shows_its_beginning_and_opens_the_others(page):
    show(page, "?strategy=condor")
    script = f"const done = arguments[0]; (async () => {{{EXPIRING}}})().then(done)"
    assert page.driver.execute_async_script(script) == [41, "… and 260 more"]
