"""The demo of `test_running.py` in headless Chromium: what a person sees, and what a click does."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import WebDriverException

from position_sync_dagster.processes.supervisor import is_serving
from tests.support import browser
from tests.support.browser import GROUPS, LINEAGE, MISSING, WHOLE_GRAPH, Page, is_installed
from tests.support.command_line import json_of
from tests.support.demo_program import ACCOUNT, Demo, command, wait_for

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

# The assets of the group `position_values`, green soon after the start. Those of other groups are
# looked at by GraphQL in `test_running.py`: a page of a group costs six seconds of processor.
MATERIALIZED = ("active_strategies", "position_queue", "position_updates")

PATH = LINEAGE.format(group="position_values")

ROOT = Path(__file__).parents[2]
STREAMED_CONID = 911000001


@pytest.fixture(scope="module")
def demo(chain_home) -> Demo:
    demo = chain_home.running()
    wait_for("the UI answers", lambda: is_serving(demo.ui_port))
    return demo


@pytest.fixture(scope="module")
def page(demo: Demo) -> Iterator[Page]:
    with browser.open_page(demo.ui_port) as page:
        yield page


def test_the_lineage_is_whole_on_one_screen_and_a_group_is_green(demo, page):
    page.open(GROUPS, size=(1440, 900))
    page.wait_for_text("broker_account", "position_values", "position_reports")
    page.open(PATH, size=WHOLE_GRAPH)
    for name in MATERIALIZED:
        wait_for(f"{name} is green", lambda n=name: page.is_green(n))
    assert "Never" not in page.text()
    wait_for("the checks pass", lambda: page.checks_pass("position_updates"))


def test_the_history_of_the_ledger_shows_the_events_of_ticks_with_their_numbers(demo, page):
    page.open("/assets/position_updates?view=events")
    page.wait_for_text("rows_drained", "rows_streamed", "delta_version")


ROWS_OF_GRID = """
const done = arguments[0];
document.querySelector('#grid').getView()
  .then(view => view.to_json()).then(done, error => done(String(error)));
"""
FOREIGN = """
return performance.getEntriesByType('resource').map(one => one.name)
  .filter(one => !one.startsWith(location.origin) && !/^(blob|data):/.test(one));
"""
LAYOUT = "return localStorage.getItem('money.layout') ?? ''"
AGED = "return document.body.classList.contains('aged')"
IMAGES = "return document.querySelectorAll('table img, #grid img').length + document.images.length"
CLICK = """
document.querySelector('#grid').dispatchEvent(
  new CustomEvent('perspective-click', {detail: {row: {__ROW_PATH__: arguments[0]}}}));
"""
MARKUP = "<img src=x onerror=document.title='taken'>"


def grid(page: Page) -> list[dict[str, Any]]:
    """Return the rows of the grid; none while it is not there."""
    with suppress(WebDriverException):
        found = page.driver.execute_async_script(ROWS_OF_GRID)
        return found if isinstance(found, list) else []
    return []


def of_strategies(page: Page, name: str) -> dict[str, float | None]:
    """Return a column of the grid by strategy."""
    rows = [row for row in grid(page) if len(row["__ROW_PATH__"]) == 1]
    return {row["__ROW_PATH__"][0]: row[name] for row in rows}


def is_as_in_tables(demo: Demo, page: Page, column: str, name: str) -> bool:
    """Return whether the grid has the sums of the tables; what no strategy has moves on.

    The command line rounds sums to cents, and the grid adds up what is not rounded. Who rounds both
    again finds 3016.95 and 3016.9500000000007 to differ.
    """
    sums = json_of("exposure", "--home", str(demo.home))["strategies"]
    expected = {row["name"]: row[name] for row in sums}
    shown = of_strategies(page, column)
    if not expected.keys() <= shown.keys():
        return False
    return {strategy: shown[strategy] for strategy in expected} == pytest.approx(expected, abs=0.01)


def positions(demo: Demo) -> list[dict[str, Any]]:
    """Return the holdings as the command line lists them."""
    found: list[dict[str, Any]] = json_of("positions", "--home", str(demo.home))
    return found


@pytest.fixture
def money(demo: Demo, page: Page) -> Page:
    """Return the money page in its first layout; tests of it that follow each other share it."""
    if not page.driver.current_url.endswith("/money"):
        page.open("/money", size=(1440, 900))
    wait_for("the grid has rows", lambda: grid(page))
    page.button("Reset")
    wait_for("all strategies", lambda: len(of_strategies(page, "value")) > 8)
    return page


def test_the_money_page_shows_the_figures_of_the_tables_and_asks_no_other_host(demo, money):
    demo.post("freeze")
    for column, name in (("value", "value"), ("unrealised", "unrealized_pnl")):
        wait_for(
            f"{column} is that of the tables",
            lambda c=column, n=name: is_as_in_tables(demo, money, c, n),
            told=lambda c=column: of_strategies(money, c),
        )
    demo.post("freeze", frozen=False)
    before = of_strategies(money, "value")
    wait_for("it moves on", lambda: of_strategies(money, "value") != before)
    assert money.driver.execute_script(FOREIGN) == []
    problems = [one for one in money.driver.get_log("browser") if one["level"] == "SEVERE"]
    assert problems == []


def test_the_money_page_sorts_and_filters_and_remembers_it(demo, money):
    legs = len(positions(demo))
    money.button("Legs")

    def sorted_legs() -> bool:
        values = [row["today"] for row in grid(money) if row["__ROW_PATH__"]]
        return len(values) == legs and None not in values and values == sorted(values)

    wait_for("all legs, the worst first", sorted_legs)
    money.click("//*[@id='strategies-table']//td[starts-with(., 'iron-condor-1')]")
    wait_for("the legs of one strategy", lambda: len(grid(money)) == 1 + 4)
    wait_for("the page has kept it", lambda: "iron-condor-1" in money.driver.execute_script(LAYOUT))
    money.driver.refresh()
    wait_for(
        "the same after a reload",
        lambda: len(grid(money)) == 1 + 4,
        told=lambda: (len(grid(money)), money.driver.execute_script(LAYOUT), money.text()[:500]),
    )
    leg = grid(money)[1]["__ROW_PATH__"]
    told = (leg[-1], f"position-sync history {ACCOUNT}:", "STREAM")

    def clicked() -> bool:  # the rows are there a little before a click has an effect
        money.driver.execute_script(CLICK, leg)
        return all(one in money.text() for one in told)

    wait_for("a click shows the leg", clicked, told=lambda: (leg, money.text()[-500:]))
    run = money.driver.find_element("css selector", "#leg-values a").get_attribute("href")
    assert "/runs/" in str(run)
    money.click("//button[@id='leg-close']")


def test_a_fill_is_on_the_money_page_and_an_outage_greys_it(demo, money):
    demo.post("fill", account=ACCOUNT, conid=STREAMED_CONID, quantity=7)
    money.wait_for_text("bought 7 ")
    demo.post("connectivity", state="lost")
    wait_for("it is grey", lambda: money.driver.execute_script(AGED))
    money.wait_for_text("BLIND since")
    demo.post("connectivity", state="restored_data_kept")
    wait_for("it is not grey", lambda: not money.driver.execute_script(AGED))
    demo.post("fill", account=ACCOUNT, conid=STREAMED_CONID, quantity=-7)


def test_a_strategy_named_as_markup_is_text(demo, money):
    row = next(row for row in positions(demo) if row["source"] == "QUEUE" and row["right"])
    leg = [str(row["conid"]), "--strategy", MARKUP, "--home", str(demo.home)]
    terms = ["--symbol", row["symbol"], "--right", row["right"], "--strike", str(row["strike"])]
    terms += ["--expiry", row["expiry"].replace("-", "")]
    added = command("strategies", "add", *leg, *terms, cwd=ROOT)
    assert added.returncode == 0, added.stderr
    wait_for("its name is shown", lambda: MARKUP in of_strategies(money, "value"))
    money.wait_for_text(MARKUP)
    assert money.driver.execute_script(IMAGES) == 0
    assert money.driver.title.endswith(" · Money")
    assert command("strategies", "remove", *leg, cwd=ROOT).returncode == 0
