"""The grid of the money page in headless Chromium, over values that are partly unknown."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from starlette.applications import Starlette

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.position_update import PositionUpdate, ValueOrigin
from position_sync_dagster.web.money_page import money_routes
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.web.test_figures import row as figures_row
from tests.support.browser import MISSING, Page, is_installed, open_page
from tests.support.demo_program import wait_for
from tests.support.legs import leg
from tests.support.receiver import serving_app

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

CELLS = """
const done = arguments[0];
Promise.resolve().then(() => document.querySelector('#grid').getPlugin('Datagrid')).then(
  plugin => done([...plugin.regular_table.querySelectorAll('tbody tr')].map(
    line => [...line.querySelectorAll('th, td')].map(cell => cell.textContent.trim()))),
  error => done([]));
"""
EARLIER_LAYOUT = "localStorage.setItem('money.layout', JSON.stringify({aggregates: {age: 'max'}}))"


def row(conid: int, **values: object) -> PositionUpdate:
    usual = {"unrealized_pnl": -0.1, "currency": "USD", "value_source": ValueOrigin.PORTFOLIO}
    return figures_row(conid, **{"value_time": utc_now()} | usual | values)


@pytest.fixture(scope="module")
def window() -> Iterator[Page]:
    """Return a window that the tests share; each has a server of its own."""
    with open_page(0) as opened:
        yield opened


@pytest.fixture
def page(window, settings) -> Iterator[Page]:
    routes = money_routes(dagster=False, open_figures=lambda: PageFigures(settings))
    with serving_app(Starlette(routes=routes)) as port:
        yield window.over(port)
        window.driver.get("about:blank")  # the server waits for the answers that it owes


@pytest.fixture
def partly_known(lake) -> None:
    lake.registry.sync.add_many([leg(1, "known"), leg(2, "partly"), leg(3, "partly")])
    delayed = {"value_source": ValueOrigin.TICK, "market_data_type": 3, "value_time": None}
    greeks = {"delta": -0.5, "theta": -0.1, "underlying_price": 600.0}
    lake.updates.sync.append([row(1, **greeks), row(2), row(3, daily_pnl=None, **delayed)])


@pytest.mark.usefixtures("partly_known")
def test_a_group_with_an_unknown_age_or_profit_says_so(page):
    def shown() -> dict[str, list[str]]:
        with suppress(WebDriverException):
            lines = page.driver.execute_async_script(CELLS)
            return {next(one for one in line if one.strip("+-")): line for line in lines}
        return {}

    page.open("/money", size=(1440, 900))
    page.driver.execute_script(EARLIER_LAYOUT)
    page.driver.refresh()
    wait_for("the strategies", lambda: {"TOTAL", "known", "partly"} <= shown().keys())
    wait_for("marks", lambda: "1 of 2" in shown()["partly"], told=shown)
    found = shown()
    assert "-7" in found["known"]
    assert {"2 of 3", "-900"} <= {*found["TOTAL"]}
    assert found["TOTAL"].count("1 of 3") == 2, "dollar delta and theta"
    assert {"60,000", "20.0"} <= {*found["known"]}
    ages = {name: cells[-1] for name, cells in found.items()}
    assert ages["known"].removesuffix("s").isdecimal()
    assert (ages["partly"], ages["TOTAL"]) == ("", "")  # the style sheet shows a dash
    assert "0" in found["known"]  # a tenth of a dollar, rounded, is no "-0"


def test_of_65_strategies_the_worst_and_the_best_are_shown_and_the_greeks_stay_on_the_screen(
    lake, page
):
    names = [f"condor-{number:02}" for number in range(65)]
    lake.registry.sync.add_many(leg(number + 1, name) for number, name in enumerate(names))
    lake.updates.sync.append(
        row(number + 1, daily_pnl=float(number)) for number in range(len(names))
    )
    page.open("/money", size=(1440, 900))

    def first_cells() -> list[str]:
        lines = "#strategies-table tbody:last-child tr td:first-child"
        return [cell.text for cell in page.driver.find_elements("css selector", lines)]

    wait_for("the strategies", lambda: len(first_cells()) > 10)
    shown = first_cells()
    assert shown[:8] == names[:8]
    assert shown[8] == "… and 49 more"
    assert shown[9:17] == names[-8:]
    legend = page.driver.find_element("css selector", "#legend")
    assert legend.size["height"] < 25, "one line"
    heading = page.driver.find_element("css selector", "#underlyings")
    assert heading.location["y"] < 700
    page.driver.find_element("css selector", "#strategies-table tr.more button").click()
    wait_for("all of them", lambda: len(first_cells()) >= 65)


COUNT_CLICKS = """
window.clicks = 0;
document.querySelector('#strategies-table').addEventListener('click', () => window.clicks++);
document.querySelector('#underlyings tbody button').focus();
getSelection().selectAllChildren(document.querySelector('h2'));
"""
KEPT = "return [window.clicks, document.activeElement.tagName, String(getSelection())]"


@pytest.mark.usefixtures("partly_known")
def test_clicks_the_focus_and_a_selection_survive_new_figures(page):
    """The tables beside the grid are drawn anew each second."""
    page.open("/money", size=(1440, 900))
    line = "#strategies-table tbody:last-child tr.act"
    wait_for("the strategies", lambda: page.driver.find_elements("css selector", line))
    page.driver.execute_script(COUNT_CLICKS)
    wait_for("an age moves on", lambda: page.driver.execute_script(AGE) not in ("", "0 s"))
    clicks, focused, selected = page.driver.execute_script(KEPT)
    assert (clicks, focused, selected.lower()) == (0, "BUTTON", "profit of the day")
    row = page.driver.find_element("css selector", line)
    for _ in range(12):
        press = ActionChains(page.driver).move_to_element(row).click_and_hold()
        press.pause(0.2).release().perform()
    assert page.driver.execute_script(KEPT)[0] == 12


AGE = "return document.querySelector('#strategies-table tbody td:last-child').textContent"
