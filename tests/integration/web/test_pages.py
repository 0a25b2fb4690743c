"""The pages in a real browser, over real tables: what a person sees, and what a click does.

One browser and one server serve all tests of this module.
"""

import json
import re
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import polars as pl
import pytest
from polars import DataFrame
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.position_update import PositionUpdate, ValueOrigin
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.profit.profit import PROFIT_PARTS
from position_sync_dagster.money.profit.todays_profit import TodaysProfit
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.settings import Settings
from position_sync_dagster.web.money_page import FeedPace
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.web.test_figures import account_of
from tests.integration.web.test_figures import row as figures_row
from tests.integration.web.test_results import put_campaign, put_campaigns_with_days
from tests.support.browser import MISSING, Page, is_installed, open_page
from tests.support.demo_program import wait_for
from tests.support.empty_lakes import put_tables
from tests.support.holdings import make_holding
from tests.support.legs import leg
from tests.support.receiver import serving_pages
from tests.support.sessions import own

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

AXE = Path(__file__).parents[2] / "support/axe/axe.min.js"
LAPTOP = (1440, 900)
TABLET = (1024, 768)
PHONE = (390, 844)

RUN_AXE = """
const done = arguments[0];
const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
const shown = rule => [rule.id, rule.nodes.map(node => node.html.slice(0, 160))];
// Of what passes, and where a node stands, nothing is said: a fifth of what axe takes.
axe.run({runOnly: rules, resultTypes: ['violations'], selectors: false}).then(
  result => done(result.violations.map(shown)), error => done([String(error)]));
"""


def row(conid: int, **values: object) -> PositionUpdate:
    usual = {"unrealized_pnl": -0.1, "currency": "USD", "value_source": ValueOrigin.PORTFOLIO}
    return figures_row(conid, **{"value_time": utc_now()} | usual | values)


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> MoneyLake:
    folder = tmp_path_factory.mktemp("pages") / "lake"
    put_tables(folder)
    lake = MoneyLake.of(Settings(lake=str(folder), gateway_id="gate"))
    later = utc_now().date() + timedelta(days=30)
    greeks = dict(delta=-0.5, theta=-0.1, underlying_price=600.0, implied_vol=0.2)
    deep = {"strike": 700.0, "market_price": 100.0, "market_value": -20_000.0}
    lake.registry.sync.add_many([leg(1, "known"), leg(2, "partly"), leg(3, "partly")])

    of_spy = row(1, **greeks, multiplier=100.0, run_id="run-of-the-row")
    of_qqq = row(4, **greeks | deep, symbol="QQQ", multiplier=100.0, expiry=later)
    rows = [of_spy, row(2, daily_pnl=3.0), row(3, daily_pnl=None), of_qqq]
    lake.updates.sync.append(rows)
    lake.account_values.append([account_of(utc_now(), -7.0, -94.1)])
    return lake


@pytest.fixture(scope="module")
def page(lake) -> Iterator[Page]:
    figures = PageFigures(Settings(lake=str(lake.path), gateway_id="gate"))
    with serving_pages(figures) as port, open_page(port) as page:
        yield page


@pytest.fixture(autouse=True)
def _lake_of_the_server(lake, monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(lake.path))


# A script of a page that runs before its own ones.
BEFORE_ALL = "Page.addScriptToEvaluateOnNewDocument"


def opened(
    page: Page, path: str = "/money", *, size: tuple[int, int] = LAPTOP, **kept: str
) -> Page:
    """Open a page of a size, with what the browser kept of earlier visits, until it has figures."""
    resize(page, size)
    usual = {"theme": "dark"}
    script = "localStorage.clear();"
    for name, value in (usual | kept).items():
        script += f"localStorage.setItem('money.{name}', {json.dumps(value)});"
    before_all = page.driver.execute_cdp_cmd(BEFORE_ALL, {"source": script})
    page.driver.get(page.address(path))
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", before_all)
    wait_for("the figures", lambda: texts(page, "#state dd"))
    return page


def resize(page: Page, size: tuple[int, int]) -> None:
    window = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)


def element(page: Page, selector: str) -> WebElement:
    return page.driver.find_element("css selector", selector)


def texts(page: Page, selector: str) -> list[str]:
    """Return the texts of what a selector finds."""
    script = "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText.trim())"
    answer: list[str] = page.driver.execute_script(script, selector)
    return answer


def violations(page: Page) -> list[Any]:
    """Return what axe-core finds on what is shown now."""
    if page.driver.execute_script("return typeof axe === 'undefined'"):
        page.driver.execute_script(AXE.read_text())
    answer: list[Any] = page.driver.execute_async_script(RUN_AXE)
    return answer


def focused(page: Page) -> str:
    text: str = page.driver.execute_script("return document.activeElement.innerText.trim()")
    return text


def press(page: Page, *keys: str) -> None:
    ActionChains(page.driver).send_keys(*keys).perform()


@pytest.mark.parametrize(
    ("theme", "size"),
    [
        ("dark", LAPTOP),
        pytest.param("light", LAPTOP, marks=pytest.mark.variation),
        pytest.param("light", PHONE, marks=pytest.mark.variation),
    ],
)
def test_axe_finds_nothing_on_the_money_page_and_on_an_open_leg(page, theme, size):
    opened(page, theme=theme, size=size)
    wait_for("scenarios", lambda: "account" in texts(page, "#scenarios td:first-child"))
    wait_for("holdings", lambda: texts(page, "#book tbody button"))
    assert violations(page) == []
    opened(page, "/money?leg=U1:1", theme=theme, size=size)
    wait_for("its values", lambda: texts(page, "#leg-values tbody tr"))
    assert violations(page) == []


NUMBERS = [
    "today USD", "net liquidation", "margin used", "current legs", "gateway", "$ delta USD",
]  # fmt: skip


def test_the_header_has_six_numbers_and_its_bridge_adds_up_to_the_cent(page):
    opened(page)
    assert texts(page, "#numbers dt") == NUMBERS
    assert texts(page, "#numbers dd:not(.note)")[:3] == ["−160.25", "50,000", "62.0 %"]
    bridge = texts(page, "#numbers .today .note")[0].replace("−", "-")
    parts = [float(part) for part in re.findall(r"-?[\d,]+\.\d\d", bridge)]
    assert parts == [-11.0, 0.0, 0.0, -149.25]
    hint = element(page, "#numbers .today").get_attribute("title")
    assert "−90.10 of what is not explained is what moved since" in str(hint)
    assert sum(parts) == pytest.approx(-160.25)


def test_the_first_screen_answers_without_scrolling_and_the_title_says_number_and_state(page):
    opened(page)
    wait_for("scenarios", lambda: "account" in texts(page, "#scenarios td:first-child"))
    wait_for("losses", lambda: "−7" in texts(page, "#losses-table td"))
    assert "LIVE" not in page.driver.title
    assert page.driver.title.endswith("NOT CONNECTED · Money")
    assert "is not connected yet: its values are from before." in texts(page, "#alert")[0]
    assert "−5 %" in " ".join(texts(page, "#scenarios th")).replace("-", "−")

    reasons = texts(page, "#decisions-table td.reason")
    assert len(reasons) == 1
    assert reasons[0].startswith("may be assigned: −2 QQQ 700P")
    assert len(texts(page, "#calm td.reason")) == 2
    bottoms = page.driver.execute_script(
        "return [...document.querySelectorAll('.panel')]"
        ".map(panel => panel.getBoundingClientRect().bottom)"
    )
    assert max(bottoms) <= LAPTOP[1]
    scrolled = "return document.documentElement.scrollHeight - innerHeight"
    assert page.driver.execute_script(scrolled) <= 0


@pytest.mark.parametrize("size", [TABLET, PHONE])
def test_no_page_is_wider_than_its_window(page, size):
    for path in ("/money", "/money/risk"):
        opened(page, path, size=size)
        wider = "return document.documentElement.scrollWidth - innerWidth"
        assert page.driver.execute_script(wider) <= 0, path


def test_a_table_is_one_stop_of_the_tab_key_and_arrows_move_in_it(page):
    opened(page)
    wait_for("holdings", lambda: len(texts(page, "#book tbody button")) > 3)
    stops = "return document.querySelectorAll('#book tbody button[tabindex=\"0\"]').length"
    assert page.driver.execute_script(stops) == 1
    page.driver.execute_script("document.querySelector('#book tbody button').focus()")
    press(page, Keys.ARROW_DOWN)
    assert focused(page) == "▸ known"
    press(page, Keys.ENTER, Keys.ARROW_DOWN)
    assert focused(page).startswith("SPY 575P")
    press(page, Keys.ENTER)
    wait_for("the leg", lambda: texts(page, "#leg-values tbody tr"))
    assert "known 100 %" in texts(page, "#leg-facts dd")
    press(page, Keys.ESCAPE)
    assert focused(page).startswith("SPY 575P"), "the focus returns to the row"


def test_the_plain_table_has_the_sums_of_the_figures_with_their_stars(page):
    opened(page)
    wait_for("holdings", lambda: len(texts(page, "#book tbody button")) > 3)
    cells = dict(zip(texts(page, "#book tbody td:first-child"), rows_of(page), strict=True))
    assert cells["▸ partly"][1:4] == ["−600", "known for 1 of 2", "0"]
    assert cells["▸ known"][1:4] == ["−300", "−7", "0"]
    assert cells["total"][1] == "−20,900"
    page.button("Greeks")
    assert "IV" in texts(page, "#book th")


def rows_of(page: Page) -> list[list[str]]:
    script = (
        "return [...document.querySelectorAll('#book tbody tr')].map("
        "row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    answer: list[list[str]] = page.driver.execute_script(script)
    return [cells for cells in answer if cells]


def test_one_search_box_opens_what_it_finds_by_the_keyboard(page):
    opened(page)
    press(page, "/", "part")
    wait_for("a match", lambda: any("partly" in text for text in texts(page, "#matches li")))
    press(page, Keys.ENTER)
    wait_for("its legs alone", lambda: len(texts(page, "#book tbody button")) == 3)
    press(page, "/", "qqq 700p")
    wait_for("a leg", lambda: any("QQQ 700P" in text for text in texts(page, "#matches li")))
    press(page, Keys.ENTER)
    wait_for("the leg", lambda: texts(page, "#leg-title")[0].startswith("QQQ 700P"))


def test_a_command_is_copied_by_a_click_as_a_shell_takes_it(page):
    opened(page, "/money?leg=U1:1")
    wait_for("its command", lambda: texts(page, "#leg-commands button"))
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    element(page, "#leg-commands button").click()
    wait_for("it is said", lambda: texts(page, "#said")[0].startswith("Copied: "))
    command = page.driver.execute_async_script(
        "const done = arguments[0]; navigator.clipboard.readText().then(done, done)"
    )
    words = shlex.split(command)
    assert words[1:3] == ["history", "U1:1"]
    assert Path(words[0]).name == "position-sync"
    assert Path(words[0]).is_file()


def test_blind_logins_and_refused_lines_are_red_and_in_the_title_and_more_legs_than_lines_are_not(
    page, tmp_path
):
    """A gateway that lost IB, one whose lines another session took, and more legs than lines."""
    settings = Settings(lake=str(tmp_path / "lake"))
    put_tables(tmp_path / "lake")
    lake = MoneyLake.of(settings)
    conids = range(1, 21)
    lake.registry.sync.add_many(leg(conid, "wide") for conid in conids)
    held = [make_holding(conid, utc_now()) for conid in conids]
    lake.broker_positions.replace(settings.gateway_id, held)
    session = own(lake, settings.gateway_id)

    def shows(path: str, alert: str, title: str, **columns: object) -> None:
        lake.sessions.renew(session, lease_s=600, line_limit=100, underlying_lines=5, **columns)
        opened(window, path)
        wait_for(alert, lambda: alert in "".join(texts(window, "#alert")))
        wait_for(title, lambda: f"{title} · " in window.driver.title)
        colour = "return getComputedStyle(document.querySelector('#alert')).backgroundColor"
        red, green, blue = re.findall(r"\d+", page.driver.execute_script(colour))[:3]
        assert int(red) > max(int(green), int(blue))

    zone = {"timezoneId": "America/New_York"}
    page.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", zone)

    with serving_pages(PageFigures(settings)) as port:
        window = page.over(port)
        began = utc_now().replace(hour=15, minute=10)
        taken = "Another session took your lines: 20 legs now by the queue, since"
        competing = f"{taken} {began:%H:%M} UTC (IB 10197); SPY 575P, again at 15:12 UTC"
        local = f"{taken} {began.astimezone(NEW_YORK):%H:%M} (IB 10197)\ndetails"
        few = "5 legs now by the queue: no market data line is free"

        blind = f"{settings.gateway_id} is BLIND"
        for path in ("/money/risk", "/money"):
            shows(path, blind, "BLIND", state=SessionState.BLIND, lines_in_use=5)
        live = {"state": SessionState.LIVE, "live_since": utc_now()}
        shows("/money", local, "LINES MISSING", lines_in_use=5, detail=competing, **live)
        element(window, "#alert summary").click()
        folded = f"SPY 575P, again at {began.replace(minute=12).astimezone(NEW_YORK):%H:%M}"
        assert texts(window, "#alert details") == [f"details\n{folded}"]

        more = dict(line_limit=100, underlying_lines=5, lines_in_use=20, detail=None)
        lake.sessions.renew(session, lease_s=600, **more, **live)
        wait_for(few, lambda: few in "".join(texts(window, "#hints")))
        assert few not in "".join(texts(window, "#notice")), "it is said once"
        wait_for("no alert", lambda: not texts(window, "[role=alert]:not([hidden])"))
        assert "· LIVE ·" in window.driver.title
        window.button("Do not show again")
        opened(window, lines="never")
        hidden = "return document.querySelector('#hints').hidden"
        assert page.driver.execute_script(hidden)
    page.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


class TickingFigures(PageFigures):
    """Figures that are read from the tables once, and of which every price moves with each read."""

    reads = 0

    def read(self, now: datetime) -> tuple[DataFrame, dict[str, Any]]:
        if not self.reads:
            self.parts, self.others = super().read(now)
        self.reads += 1

        parts = self.parts.with_columns(market_value=pl.lit(float(self.reads)))
        return parts, self.others | {"at": now.isoformat()}


@pytest.mark.variation
def test_the_memory_of_a_tab_stays_flat_over_many_answers(page, lake):
    """As many answers as in a quarter of an hour: what one of them left behind would add up."""
    figures = TickingFigures(Settings(lake=str(lake.path)))
    pace = FeedPace(period_s=0.05, share=1.0)

    def after(answers: int) -> tuple[int, int]:
        wait_for(f"{answers} answers", lambda: figures.reads >= answers)
        page.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        heap = page.driver.execute_cdp_cmd("Runtime.getHeapUsage", {})["usedSize"]
        nodes = page.driver.execute_cdp_cmd("Memory.getDOMCounters", {})["nodes"]
        return heap, nodes

    with serving_pages(figures, pace=pace) as port:
        opened(page.over(port))
        heap, nodes = after(100)
        later_heap, later_nodes = after(figures.reads + 300)
        assert later_heap - heap < 300 * 1000, "a kilobyte for each answer"
        assert later_nodes - nodes < 300


class ExplainedFigures(PageFigures):
    """Figures whose explanation is of a moment at which less had been lost, or something gained."""

    profit = -5.0

    def _explain(self, figures: Figures) -> list[TodaysProfit]:
        parts = dict.fromkeys(PROFIT_PARTS, 0.0) | {"theta": -4.0, "delta": -2.0, "vega": 9.0}
        row = TodaysProfit(
            strategy="known", account="U1", currency="USD", at=figures.at, since=figures.at,
            profit=self.profit, largest={}, left_out=0, why_unknown=None, closed=12.0, known=1,
            of=1, **parts,
        )  # fmt: skip
        return [row]


def test_what_a_loss_mostly_is_stands_beside_the_profit_of_its_moment_also_where_that_is_a_gain(
    page, lake
):
    figures = ExplainedFigures(Settings(lake=str(lake.path)))
    with serving_pages(figures) as port:
        window = opened(page.over(port))
        wait_for("why", lambda: "theta −4, other −1" in texts(window, "#losses-table td"))
        assert "−7" in texts(window, "#losses-table td")
        assert re.fullmatch(r"mostly, at \d\d:\d\d", texts(window, "#losses-table th")[-1])
        figures.profit = 3.0
        wait_for("a gain", lambda: "theta −4, other +7" in texts(window, "#losses-table td"))


WIDER = """
const box = document.querySelector('#why .wide-table');
return box.scrollWidth - box.clientWidth;
"""


def test_why_has_a_total_and_what_was_closed_and_is_not_scrolled_sideways(page, lake):
    figures = ExplainedFigures(Settings(lake=str(lake.path)))
    with serving_pages(figures) as port:
        window = opened(page.over(port))
        element(window, "#why-open").click()
        wait_for("a total", lambda: "total" in texts(window, "#why-table td"))
        assert texts(window, "#why-table th")[:3] == ["strategy", "profit", "closed today"]
        total, known = window.driver.execute_script(LINES_OF_WHY)
        assert known[:3] == ["known U1", "−5.00", "12.00"]
        of_book = {cells[0]: cells[2] for cells in rows_of(window)}["total"]
        assert total[1:3] == [of_book, "12.00"]
        assert window.driver.execute_script(WIDER) == 0
        assert violations(window) == []


LINES_OF_WHY = """
return [...document.querySelectorAll('#why-table tbody tr')].map(
  row => [...row.cells].map(cell => cell.innerText))
"""


class LateFigures(PageFigures):
    """Figures whose feed waits, while the API answers already."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.may_read = Event()

    def read(self, now: datetime) -> Any:
        self.may_read.wait(60.0)
        return super().read(now)


def test_why_is_there_before_the_figures_and_a_late_feed_is_no_server_that_does_not_answer(
    page, lake
):
    figures = LateFigures(Settings(lake=str(lake.path)))
    with serving_pages(figures) as port:
        window = page.over(port)
        window.driver.get_log("browser")
        window.driver.get(window.address("/money"))
        answered = "return fetch('/api/v1/why?').then(answer => answer.status)"
        assert window.driver.execute_script(answered) == 200
        element(window, "#why-open").click()
        assert texts(window, "#why-at") == ["Not computed yet."]
        assert "does not answer" not in window.text()
        figures.may_read.set()
        wait_for("why", lambda: "total" in texts(window, "#why-table td"), told=window.text)
        assert "does not answer" not in window.text()
        faults = [entry for entry in window.driver.get_log("browser") if "TypeError" in str(entry)]
        assert faults == []


DRAWN_BADLY = """
const {Panel} = await import('/money/app/panel.js');
await new Panel('leg').show({}, async () => 1, () => { throw new Error('drawn badly'); });
"""


def test_a_fault_of_drawing_is_said_in_the_console_alone(page):
    opened(page)
    page.driver.get_log("browser")
    page.driver.execute_script(f"return (async () => {{{DRAWN_BADLY}}})()")
    assert "does not answer" not in element(page, "#leg").get_attribute("textContent")
    assert "drawn badly" in str(page.driver.get_log("browser"))


def test_only_days_with_rows_can_be_chosen_and_a_moment_without_leaves_what_was(page, lake):
    opened(page)
    wait_for("the days", lambda: len(options(page, "#past-day")) > 1)
    days = sorted(str(day) for day in lake.updates.sync.days())
    assert options(page, "#past-day") == ["today", *reversed(days)]
    assert element(page, "#live").is_displayed()

    long_ago = (
        "const s = arguments[0]; s.min = 0; s.value = 1000; s.dispatchEvent(new Event('input'))"
    )
    page.driver.execute_script(long_ago, element(page, "#moment"))
    wait_for("why not", lambda: "has no row of" in element(page, "#moment-text").text)
    assert element(page, "#live").is_displayed()
    assert "AS OF" not in page.driver.title

    def total() -> str:
        return {cells[0]: cells[1] for cells in rows_of(page)}.get("total", "")

    before = total()
    valued = {"market_value": -45_000.0, "symbol": "QQQ", "update_id": "after the refusal"}
    lake.updates.sync.append([row(4, multiplier=100.0, **valued)])
    wait_for("the feed goes on", lambda: total() not in ("", before))
    assert "NO FIGURES" not in page.driver.title
    element(page, "#live").click()
    wait_for("live", lambda: element(page, "#moment-text").text == "live")


def options(page: Page, selector: str) -> list[str]:
    return [option.text for option in Select(element(page, selector)).options]


CLOSE_ONE = """
const {figures} = await import('/money/app/figures.js');
const {only, updateHoldings} = await import('/money/app/holdings_panel.js');
const leg = {account: 'U1', conid: 9, name: 'SPY gone', symbol: 'SPY', currency: 'USD', today: 5,
  realised_today: 2, expiry: null, strategies: ['known']};
Object.defineProperty(figures, 'closed_today', {get: () => [leg], set: () => {}});
updateHoldings();
"""


IN_BASE = """
const {figures} = await import('/money/app/figures.js');
const {updateHoldings} = await import('/money/app/holdings_panel.js');
const total = {
  account: null, currency: 'EUR', market_value: 1100, today: -20, why_unknown: 'no rate'};
Object.defineProperty(figures, 'in_base', {get: () => [total], set: () => {}});
updateHoldings();
"""


def test_the_total_over_currencies_is_a_row_of_its_own(page):
    opened(page)
    wait_for("the book", lambda: rows_of(page))
    page.driver.execute_script(f"return (async () => {{{IN_BASE}}})()")
    cells = {cells[0]: cells for cells in rows_of(page)}
    assert cells["total in EUR"][1:3] == ["1,100", "−20"]


def test_the_total_has_what_closed_today_and_a_filtered_book_has_a_total_of_its_own(page):
    opened(page)
    wait_for("the book", lambda: rows_of(page))

    def today() -> dict[str, str]:
        return {cells[0]: cells[2] for cells in rows_of(page)}

    whole = today()["total"]
    page.driver.execute_script(f"return (async () => {{{CLOSE_ONE}}})()")
    assert (today()["open"], today()["closed today"]) == (whole, "5")

    chosen(page, "known")
    wait_for("one strategy", lambda: "known" in today())
    expected = {"known": "−2", "open": "−7", "closed today": "5"}
    assert {name: today().get(name) for name in expected} == expected
    assert "total" not in today()
    chosen(page, "partly")
    wait_for("another strategy", lambda: "partly" in today())
    assert "closed today" not in today()

    page.button("All")
    words = element(page, "#tools input")
    words.send_keys("known")
    wait_for("the legs with these words", lambda: today().get("total") == "−2")
    page.button("All")


LOSE_ONE = (
    CLOSE_ONE.replace("today: 5", "today: -50")
    + """
const {drawLosses} = await import('/money/app/losses_panel.js');
drawLosses();
"""
)


def test_what_closed_today_with_a_loss_is_among_the_largest_losses(page):
    opened(page)
    wait_for("the book", lambda: rows_of(page))
    page.driver.execute_script(f"return (async () => {{{LOSE_ONE}}})()")
    worst, *open_ones = texts(page, "#losses-table tbody tr")
    assert worst.split() == ["SPY", "gone", "closed", "−50"]
    assert {text.split()[0] for text in open_ones} == {"known", "UNATTRIBUTED"}


AS_OF = """
const {figures} = await import('/money/app/figures.js');
const {updateHoldings} = await import('/money/app/holdings_panel.js');
const {drawHeader} = await import('/money/app/header.js');
const {drawLosses} = await import('/money/app/losses_panel.js');
const of = (name, value) => Object.defineProperty(figures, name, {get: () => value, set: () => {}});
of('not_kept', ['held']);
of('missing', ['≈ marks 1 of 4 legs']);
of('totals', figures.totals.map((sums) => ({...sums, not_kept: 1})));
const marked = (sums) => ({...sums, not_kept: Number(sums.strategy === 'known')});
of('strategies', figures.strategies.map(marked));
of('accounts', figures.accounts.map((account) => ({...account, not_kept: 1})));
updateHoldings(); drawHeader(); drawLosses();
"""


def test_a_sum_of_a_past_moment_that_is_not_what_was_shown_is_marked_with_the_reason(page):
    opened(page)
    wait_for("the book", lambda: rows_of(page))
    page.driver.execute_script(f"return (async () => {{{AS_OF}}})()")
    values = {cells[0]: cells[1:3] for cells in rows_of(page)}
    assert values["▸ known"] == ["≈−300", "≈−7"]
    value, today = values["total"]
    assert value.startswith("≈−")
    assert today == "known for 3 of 4"
    assert not any("≈" in text for text in values["▸ partly"])
    titles = "return [...document.querySelectorAll('#book tr.group')].map(row => row.title)"
    assert "≈ marks 1 of 4 legs" in page.driver.execute_script(titles)
    [note] = texts(page, "#numbers .today .note")
    assert note.count("≈") == 2, "what is open, and what is not explained"
    assert texts(page, "#losses-table tbody tr")[0].split()[:2] == ["known", "≈−7"]


OTHER_ACCOUNT = """
const {figures} = await import('/money/app/figures.js');
const {updateHoldings} = await import('/money/app/holdings_panel.js');
const accounts = [...figures.accounts, {...figures.accounts[0], account: 'U2'}];
Object.defineProperty(figures, 'accounts', {get: () => accounts, set: () => {}});
updateHoldings();
"""


def test_a_leg_has_its_account_where_there_are_several(page):
    opened(page)
    page.button("Legs")
    wait_for("the legs", lambda: len(rows_of(page)) > 4)
    names = [cells[0] for cells in rows_of(page) if cells[0] != "total"]
    page.driver.execute_script(f"return (async () => {{{OTHER_ACCOUNT}}})()")
    now = [cells[0] for cells in rows_of(page) if cells[0] != "total"]
    assert now == [f"{name} U1" for name in names]


def chosen(page: Page, strategy: str) -> None:
    script = (
        "import('/money/app/holdings_panel.js').then(book => book.only('strategy', arguments[0]))"
    )
    page.driver.execute_script(script.replace("arguments[0]", repr(strategy)))


# Figures that stay as they are played, whatever the feed brings: to a page that is slow to ask it
# brings all of them.
PLAY = """
const {figures} = await import('/money/app/figures.js');
const play = played => Object.entries(played).forEach(([name, value]) =>
  Object.defineProperty(figures, name, {get: () => value, set: () => {}}));
"""
TRADED = "return [...document.querySelectorAll('#changes-table tr')].map(row => row.className)"


def test_limits_and_outages_are_red_and_first_and_what_is_new_is_marked_until_it_was_seen(page):
    """What the feed brings is played to the page: a limit, a hint, two changes."""
    opened(page, looked_at="1767225600000")
    script = f"""
        {PLAY}
        const limit = {{state: 'BROKEN', text: 'loss of known: -7 < -5'}};
        const change = (hour, text) => ({{
          at: `2026-01-01T${{hour}}:00:00Z`, kind: 'TRADE', text, conids: [1], amount: null}});
        play({{
          limits: [limit], hints: ['One is in no strategy: `position-sync strategies propose`.'],
          attention: ['One is in no strategy: `position-sync strategies propose`.', '2 FAILED'],
          changes: [change('02', 'after'), change('00', 'before')],
        }});
    """
    page.driver.execute_script(f"(async () => {{{script}}})()")
    wait_for("the limit", lambda: texts(page, "#alert")[0].startswith("Limit broken: loss of"))
    assert "not connected" in texts(page, "#alert")[0]
    assert texts(page, "#notice") == ["2 FAILED"]
    new_first = ["trade new act", "trade act"]
    wait_for("the changes", lambda: page.driver.execute_script(TRADED) == new_first)
    assert texts(page, "#looked")[0].startswith("1 new since I looked")
    element(page, "#looked").click()
    wait_for("seen", lambda: page.driver.execute_script(TRADED) == ["trade act", "trade act"])

    page.button("Do not show again")
    hints = "return document.querySelector('#hints').hidden"
    wait_for("the hint is gone", lambda: page.driver.execute_script(hints))
    page.driver.refresh()
    wait_for("the figures", lambda: texts(page, "#state dd"))
    page.driver.execute_script(f"(async () => {{{script}}})()")
    wait_for("the limit", lambda: "Limit broken" in texts(page, "#alert")[0])
    assert page.driver.execute_script(hints)


def test_a_slider_plays_the_day_back_in_every_panel_until_live_is_chosen(page, lake):
    """The value of one holding changes; a moment before has the value of before."""

    def total() -> str:
        return {cells[0]: cells[1] for cells in rows_of(page)}.get("total", "")

    def write(value: float) -> None:
        valued = {"market_value": value, "symbol": "QQQ", "update_id": f"row-4{value}"}
        lake.updates.sync.append([row(4, multiplier=100.0, **valued)])

    write(-31_000.0)
    opened(page)
    wait_for("the first value", lambda: total() == "−31,900")
    before = utc_now() + timedelta(seconds=1)
    wait_for("a whole second", lambda: utc_now() > before + timedelta(seconds=1))
    write(-32_000.0)
    wait_for("the second value", lambda: total() == "−32,900")

    script = "const s = arguments[0]; s.value = arguments[1]; s.dispatchEvent(new Event('input'))"
    slider = element(page, "#moment")
    page.driver.execute_script(script, slider, int(before.timestamp()))
    wait_for("the moment", lambda: total() == "−31,900")
    shown = element(page, "#moment-text").text
    assert re.fullmatch(r"as of \d\d:\d\d:\d\d", shown)
    after = "return getComputedStyle(document.querySelector('#changes h2'), '::after').content"
    assert shown in page.driver.execute_script(after)
    assert page.driver.title.count("AS OF") == 1
    assert "not kept" in texts(page, "#numbers dd")
    assert violations(page) == []

    element(page, "#live").click()
    wait_for("live", lambda: total() == "−32,900")
    assert element(page, "#moment-text").text == "live"


# Lets each answer of the whole state wait until `release` is called, and counts those of the feed.
HOLD = """
const usual = window.fetch;
window.answers = window.asked = 0;
const released = new Promise(done => { window.release = done; });
window.fetch = async (path, ...more) => {
  const answer = await usual(path, ...more);
  if (path === '/money/data?after=0') { window.asked += 1; await released; }
  else if (path.startsWith('/money/data?after=')) window.answers += 1;
  return answer;
};
"""


# The slider begins at the first value of the day, which is computed beside the first figures.
HAS_PAST = (
    "const {min, max} = document.querySelector('#moment'); return Number(min) < Number(max) - 1"
)

ADD_DAY = "arguments[0].append(new Option('2001-01-01'))"

# Lets the next question about the whole state fail.
FAIL_ONCE = """
const usual = window.fetch;
window.fetch = (path, ...more) => {
  if (path !== '/money/data?after=0') return usual(path, ...more);
  window.fetch = usual;
  return Promise.reject(new TypeError('no connection'));
};
"""

VALUE_OF_FOUR = """
const done = arguments[0];
import('/money/app/parts.js').then(
  ({ parts }) => done([...parts.values()].find(part => part.conid === 4)?.market_value));
"""


def test_an_answer_that_comes_late_overwrites_no_newer_one(page, lake):
    """Twice: on the way back from a past moment, and where the page was live all the time."""
    figures = PageFigures(Settings(lake=str(lake.path)), fresh=timedelta())
    with serving_pages(figures, pace=FeedPace(period_s=0.5, share=1.0)) as port:
        window = opened(page.over(port))
        text = element(window, "#moment-text")

        def value() -> float:
            return window.driver.execute_async_script(VALUE_OF_FOUR)

        def write(amount: float) -> None:
            valued = {"market_value": amount, "symbol": "QQQ", "update_id": f"late {amount}"}
            lake.updates.sync.append([row(4, multiplier=100.0, **valued)])

        def wait_for_answers() -> None:
            count = window.driver.execute_script("return window.answers")
            more = "return window.answers > arguments[0] + 1"
            wait_for("newer answers", lambda: window.driver.execute_script(more, count))

        for first, newer, is_past in ((-41_000.0, -42_000.0, True), (-43_000.0, -44_000.0, False)):
            write(first)
            wait_for("the first value", lambda: value() == first)  # noqa: B023
            wait_for("the day", lambda: window.driver.execute_script(HAS_PAST))
            window.driver.execute_script(HOLD)
            if is_past:
                back = "arguments[0].value -= 1; arguments[0].dispatchEvent(new Event('input'))"
                window.driver.execute_script(back, element(window, "#moment"))
                wait_for("a moment", lambda: re.fullmatch(r"as of \d\d:\d\d:\d\d", text.text))
            element(window, "#live").click()
            wait_for("the question", lambda: window.driver.execute_script("return window.asked"))

            write(newer)
            wait_for_answers()
            window.driver.execute_script("window.release()")
            wait_for("live", lambda: text.text == "live")
            wait_for_answers()
            assert value() == newer, is_past


def test_a_past_day_is_played_back_with_the_curves_of_that_day(page, lake):
    at = (utc_now() - timedelta(days=2)).replace(hour=12)
    of_that_day = MoneyLake(lake.path, fsync=False, clock=lambda: at)
    values = dict(timestamp=at, value_time=at, symbol="QQQ", update_id="two days ago")
    of_that_day.updates.sync.append([row(4, market_value=-123.0, daily_pnl=-23.0, **values)])
    account = AccountSummary(account="U2", currency="USD", timestamp=at, daily_pnl=-23.0)
    of_that_day.account_values.append([account])

    opened(page)
    script = "const s = arguments[0]; s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
    day = f"{at:%Y-%m-%d}"
    wait_for("the day", lambda: day in options(page, "#past-day"))
    page.driver.execute_script(script, element(page, "#past-day"), day)
    text = element(page, "#moment-text")
    wait_for("the end of the day", lambda: text.text == f"as of {day} 23:59:59")
    assert [cells[1] for cells in rows_of(page) if cells[0] == "total"] == ["−123"]
    assert "U2" in texts(page, "#legend")[0]

    slider = element(page, "#moment")
    assert int(slider.get_attribute("min")) <= at.timestamp() + 1
    after = (at + timedelta(seconds=2)).astimezone()
    page.driver.execute_script(script.replace("change", "input"), slider, int(after.timestamp()))
    assert "U2 −23" in texts(page, "#legend")[0]
    wait_for("the moment", lambda: text.text == f"as of {day} {after:%H:%M:%S}")

    # A moment that cannot be read leaves the day and the moment that are shown.
    page.driver.execute_script("arguments[0].min = 0", slider)
    page.driver.execute_script(script.replace("change", "input"), slider, 1000)
    wait_for("why not", lambda: "has no row of" in text.text)
    assert element(page, "#past-day").get_property("value") == day
    assert int(slider.get_property("value")) == int(after.timestamp())
    assert "AS OF" in page.driver.title
    page.driver.execute_script(ADD_DAY, element(page, "#past-day"))
    page.driver.execute_script(script, element(page, "#past-day"), "2001-01-01")
    wait_for("why not", lambda: "has no row of 2001-01-0" in text.text, told=lambda: text.text)
    assert element(page, "#past-day").get_property("value") == day

    # On the way back to live it is asked again until there is an answer.
    page.driver.execute_script(FAIL_ONCE)
    element(page, "#live").click()
    wait_for("live", lambda: text.text == "live")
    assert "AS OF" not in page.driver.title


@pytest.fixture
def results(page, tmp_path) -> Iterator[Page]:
    """Return the page of the results of a campaign that is over."""
    put_tables(tmp_path / "lake")
    settings = Settings(lake=str(tmp_path / "lake"))
    put_campaign(MoneyLake.of(settings))
    with serving_pages(PageFigures(settings)) as port:
        window = page.over(port)
        resize(window, LAPTOP)
        window.driver.get(window.address("/money/results"))
        yield window


def test_days_groups_and_the_curve_are_shown_and_a_line_opens_its_campaign(results):
    """Two puts brought 2 × 300 less 2.60; on the second day the holdings lost 300."""
    wait_for("the groups", lambda: "csp" in texts(results, "#groups-table td"), told=results.text)
    assert {"1", "100.0 %", "597", "3"} <= {*texts(results, "#groups-table td")}
    assert "3\n−300" in texts(results, "#calendar-table td")
    assert "realised since the first day 597" in element(results, "#realised-chart .reading").text
    Select(element(results, "#of-day")).select_by_visible_text("realised")
    wait_for("what was realised", lambda: "6\n597" in texts(results, "#calendar-table td"))
    Select(element(results, "#by")).select_by_visible_text("month")
    wait_for("the month", lambda: "2026-03" in texts(results, "#groups-table td"))
    assert not element(results, "#campaign").is_displayed()

    results.click("//table[@id='campaigns-table']//button[text()='csp']")
    wait_for("its fills", lambda: len(texts(results, "#campaign-fills td")) == 16)
    assert "campaign=" in results.driver.current_url
    assert "1,000.00 / 400.00" in element(results, "#campaign-facts").text
    results.driver.refresh()
    wait_for("the address opens it", lambda: len(texts(results, "#campaign-fills td")) == 16)

    wait_for("the sixth", lambda: results.driver.execute_script(OPEN_DAY, "6"))
    wait_for("the day", lambda: element(results, "#day").text.startswith("2026-03-06: "))
    assert "csp" in texts(results, "#day-campaigns td")
    assert "closes" in texts(results, "#day-trades td")

    none = "No trading day with its books is known."
    wait_for("no returns", lambda: element(results, "#returns-table").text == none)
    wait_for("costs", lambda: "csp" in texts(results, "#costs-table td"), told=results.text)
    known = (
        "0 of 2 fills had a quote right before them: slippage, spread and cost are of these alone."
    )
    assert texts(results, "#costs-known") == [known]

    resize(results, PHONE)
    wider = "return document.documentElement.scrollWidth - innerWidth"
    wait_for("nothing is wider", lambda: results.driver.execute_script(wider) <= 0)
    wait_for("axe finds nothing", lambda: violations(results) == [])


PATHS = """
const lines = [...document.querySelectorAll(`#${arguments[0]}-table tbody tr`)];
return lines.map(line => line.querySelector('svg.trend path')?.getAttribute('d') ?? '');
"""


def test_each_campaign_has_a_picture_of_its_path_and_open_ones_what_shares_cost(page, tmp_path):
    """The paths begin at nothing; their highest point is at 2, the lowest at 22."""
    put_tables(tmp_path / "lake")
    settings = Settings(lake=str(tmp_path / "lake"))
    put_campaigns_with_days(MoneyLake.of(settings))
    with serving_pages(PageFigures(settings)) as port:
        window = page.over(port)
        resize(window, LAPTOP)
        window.driver.get(window.address("/money/results"))
        wait_for("over", lambda: "−300" in texts(window, "#campaigns-table td"), told=window.text)
        [path] = window.driver.execute_script(PATHS, "campaigns")
        assert path.count("L") == 5

        heights = [float(step.split(" ")[1]) for step in path[1:].split("L")]
        assert heights == pytest.approx([15.31, 17.54, 22.0, 15.32, 6.41, 2.0], abs=0.01)
        wait_for("open", lambda: "43.51" in texts(window, "#open-table td"), told=window.text)
        [path] = window.driver.execute_script(PATHS, "open")
        assert path.count("L") == 5
        assert "−300" in texts(window, "#groups-table td")

        window.driver.get(window.address("/money"))
        wait_for("the cost", lambda: "43.51" in texts(window, "table.holdings td"))


OPEN_DAY = """
const cells = [...document.querySelectorAll('#calendar-table td')];
const day = cells.find(cell => cell.querySelector('span')?.innerText === arguments[0]);
const button = day?.querySelector('button');
button?.click();
return Boolean(button);
"""


BOX = "const box = document.querySelector(arguments[0]);"
HIDDEN_BELOW = f"{BOX} return box.scrollHeight - box.clientHeight"
HIDDEN_BESIDE = f"{BOX} return box.scrollWidth - box.clientWidth"
TOP_OF_MAIN = "return document.querySelector('main').getBoundingClientRect().top"
NOTICES = f"""
{PLAY}
play({{
  limits: [{{state: 'BROKEN', text: 'loss of known: -7 < -5'}}, {{state: 'BROKEN', text: 'vega'}}],
  hints: ['A first step.'], attention: ['A first step.', '2 FAILED', '3 late', '4 stale'],
}});
"""


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_the_page_does_not_move_when_a_notice_comes_and_whoever_looks_sees_all_of_it(page, size):
    opened(page, size=size)
    before = page.driver.execute_script(TOP_OF_MAIN)
    page.driver.execute_script(f"(async () => {{{NOTICES}}})()")
    wait_for("the limit", lambda: "Limit broken" in texts(page, "#alert")[0])
    assert page.driver.execute_script(TOP_OF_MAIN) == before
    page.driver.execute_script("document.querySelector('#notices').focus()")
    assert texts(page, "#notice") == ["2 FAILED\n3 late\n4 stale"]
    assert page.driver.execute_script(HIDDEN_BELOW, "#notice") <= 0
    assert page.driver.execute_script(TOP_OF_MAIN) == before


DECIDED = (
    PLAY
    + """
const [needed, calm] = arguments;
const decision = (name, step) => ({
  kind: 'expires', name, strategy: name, currency: 'USD', is_urgent: false, reason: 'so it is',
  step, at_stake: 1, holdings: [],
});
const names = count => Array.from({length: count}, (_, n) => n);
const decisions = [...names(needed).map(n => decision(`s${n}`, 'do it')),
  ...names(calm).map(n => decision(`calm${n}`, null))];
play({decisions});
"""
)


@pytest.mark.parametrize(("needed", "are_folded"), [(6, False), (30, True)])
def test_no_decision_is_folded_while_there_is_room_and_what_needs_nothing_stands_below(
    page, needed, are_folded
):
    opened(page)
    script = DECIDED.replace("arguments", f"[{needed}, 1]")
    page.driver.execute_script(f"(async () => {{{script}}})()")
    wait_for("them", lambda: texts(page, "#calm td:first-child") == ["calm0"])
    names = texts(page, "#decisions-table tbody td:first-child")
    assert names[0] == "s0"
    assert names[-1].startswith("… and ") == are_folded
    assert len(names) >= 6
    bottoms = [page.driver.execute_script(BOTTOM, box) for box in LAST_DECISION_AND_PANEL]
    assert bottoms[0] <= bottoms[1]


def test_a_long_reason_is_one_line_with_its_whole_text_as_a_hint(page):
    opened(page)
    long = f"{'a reason of many words, ' * 40}and its end"
    script = DECIDED.replace("arguments", "[30, 0]").replace("so it is", long)
    page.driver.execute_script(f"(async () => {{{script}}})()")
    wait_for("them", lambda: texts(page, "#decisions-table td:first-child")[:1] == ["s0"])
    assert len(texts(page, "#decisions-table tbody tr")) >= 6
    line = element(page, "#decisions-table td.reason .line")
    assert line.get_attribute("title").endswith(long)
    assert page.driver.execute_script(HIDDEN_BESIDE, "#decisions-table .reason .head") > 0
    assert page.driver.execute_script(HIDDEN_BESIDE, "#decisions-table .reason") <= 0


LAST_DECISION_AND_PANEL = ("#decisions-table tbody tr:last-child", "#decisions")
BOTTOM = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"
LONG = "SPY iron condor of the short month 04Dec 2"


def test_a_long_name_is_cut_in_its_middle_where_there_is_no_room_and_nowhere_else(page):
    """What tells names apart stands at their end: it is seen on a phone too."""
    script = DECIDED.replace("arguments", "[1, 0]").replace("`s${n}`", f"'{LONG}'")
    for size, is_cut in ((PHONE, True), (LAPTOP, False)):
        opened(page, size=size)
        page.driver.execute_script(f"(async () => {{{script}}})()")
        wait_for("it", lambda: texts(page, "#decisions-table td:first-child") == [LONG])
        head, button = "#decisions-table td .head", "#decisions-table td button"
        assert (page.driver.execute_script(HIDDEN_BESIDE, head) > 0) == is_cut, size
        assert page.driver.execute_script(HIDDEN_BESIDE, button) <= 0, "its end is there"
        assert element(page, button).get_attribute("title") == LONG


def test_a_small_price_keeps_its_decimals_and_parts_of_one_are_in_percent(page, lake):
    opened(page)
    wait_for("holdings", lambda: len(texts(page, "#book tbody button")) > 3)
    script = """
      const {price, percent, cents, whole} = await import('/money/app/format.js');
      return [
        price(0.005), price(41.2), price(-0.00001), percent(0.2254), cents(-0.001), whole(-8.5)];
    """
    shown = page.driver.execute_async_script(
        f"const done = arguments[0]; (async () => {{{script}}})().then(done)"
    )
    assert shown == ["0.005", "41.20", "0.00", "22.5 %", "0.00", "−8"], "−8 as in the texts"
    script = script.replace("format.js", "table.js").replace(
        "price, percent, cents, whole", "money"
    )
    script = f"{script.partition('return')[0]} return [money(-0.1), money(-0.6)];"
    shown = page.driver.execute_async_script(
        f"const done = arguments[0]; (async () => {{{script}}})().then(done)"
    )
    assert [cell[:2] for cell in shown] == [["0", ""], ["−1", "down"]]
    page.button("Greeks")
    page.button("Legs")
    wait_for("legs", lambda: "20.0 %" in {cell for row in rows_of(page) for cell in row})


def test_each_page_says_in_its_header_which_way_the_book_leans(page):
    deltas = set()
    for path in ("/money", "/money/risk", "/money/results"):
        opened(page, path)
        labels = texts(page, "#numbers dt")
        assert "$ delta USD" in labels, path
        deltas.add(texts(page, "#numbers dd:nth-child(2)")[labels.index("$ delta USD")])
    assert len(deltas) == 1


DELIVERED = "−100 MSFT and +44,000 USD"
HEIGHT = "return document.querySelector(arguments[0]).getBoundingClientRect().height"


def test_a_reason_is_whole_where_there_is_room_and_else_its_end_begins_with_a_whole_number(page):
    long = f"−1 MSFT 440C is worth 0.20 above its exercise; {'and so on, ' * 9}{DELIVERED}"
    script = DECIDED.replace("so it is", long)
    for needed, is_cut in ((2, False), (30, True)):
        opened(page)
        page.driver.execute_script(
            f"(async () => {{{script.replace('arguments', f'[{needed}, 0]')}}})()"
        )
        wait_for("them", lambda: texts(page, "#decisions-table td:first-child")[:1] == ["s0"])
        hidden = page.driver.execute_script(HIDDEN_BESIDE, "#decisions-table .reason .head")
        assert (hidden > 0) == is_cut
        line = element(page, "#decisions-table .reason .line")
        end = page.driver.execute_script("return arguments[0].lastChild.textContent", line)
        assert end == DELIVERED


def test_without_a_decision_the_list_takes_no_room_on_a_phone(page):
    opened(page, size=PHONE)
    script = DECIDED.replace("arguments", "[0, 0]")
    page.driver.execute_script(f"(async () => {{{script}}})()")
    wait_for("none", lambda: "Nothing: " in texts(page, "#decisions")[0])
    assert page.driver.execute_script(HEIGHT, "#decisions") < 120


LITTLE_IS_KNOWN = (
    PLAY
    + """
const totals = structuredClone(figures.totals);
for (const sums of totals) for (const name of ['dollar_delta', 'theta', 'vega']) {
  sums[name] = null;
  sums.unknown[name] = 20;
  sums.of[name] = 200;
}
const margins = {U1: [[figures.at, 1], ['2026-01-02T10:00:00Z', 2]]};
play({totals, margins});
"""
)


def test_greeks_that_are_not_known_do_not_move_the_page_and_axe_finds_nothing_in_the_header(page):
    opened(page)
    before = page.driver.execute_script(TOP_OF_MAIN)
    page.driver.execute_script(f"(async () => {{{LITTLE_IS_KNOWN}}})()")
    known = ["known for 180 of 200; theta and vega 180 of 200"]
    wait_for("how many are known", lambda: texts(page, "#numbers .lean .note") == known)
    assert texts(page, "#numbers .lean dd")[0] == "–"
    wait_for("the margin of the day", lambda: texts(page, "#numbers dd.trend"))
    assert page.driver.execute_script(TOP_OF_MAIN) == before
    assert violations(page) == []


def test_the_header_says_when_it_was_and_a_header_that_never_came_says_why(page):
    opened(page)
    assert re.fullmatch(r"\w{3} \d\d \w+, \d\d:\d\d:\d\d \S+", element(page, "#clock").text)
    refused = page.driver.execute_cdp_cmd(BEFORE_ALL, {"source": WITHOUT_HEADER})
    try:
        page.driver.get(page.address("/money/risk"))
        wait_for("why", lambda: "does not answer" in element(page, "#notice").text)
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", refused)


WITHOUT_HEADER = """
const ask = window.fetch;
window.fetch = (address, ...more) => address.includes('/header')
  ? Promise.reject(new TypeError('gone')) : ask(address, ...more);
"""


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_on_the_three_pages(page, lake, theme):
    for path, ready in (
        ("/money", "#scenarios td:first-child"), ("/money/risk", "#recorded-table td"),
        ("/money/results", "#calendar-none"),
    ):  # fmt: skip
        opened(page, path, theme=theme)
        wait_for(path, lambda ready=ready: texts(page, ready))
        wait_for(
            f"nothing on {path}", lambda: violations(page) == [], told=lambda: violations(page)
        )
