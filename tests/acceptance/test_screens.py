"""The demo of `test_running.py` in headless Chromium: what a person sees, and what a click does."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from selenium.common.exceptions import WebDriverException

from position_sync_dagster.processes.supervisor import is_serving
from tests.support import browser
from tests.support.browser import LINEAGE, MISSING, WHOLE_GRAPH, Page, is_installed
from tests.support.command_line import json_of, run
from tests.support.demo_program import ACCOUNT, Demo, wait_for

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

# Assets that are green soon after the start. Others are looked at by GraphQL in `test_running.py`.
MATERIALIZED = ("active_strategies", "position_queue", "position_updates")

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


def test_the_lineage_shows_assets_and_the_way_of_a_value_is_green(demo, page):
    page.open(LINEAGE, size=(1440, 900))
    wait_for("assets and no boxes", lambda: page.has_small_node("position_updates"))
    page.open(LINEAGE, size=WHOLE_GRAPH)
    for name in MATERIALIZED:
        wait_for(f"{name} is green", lambda n=name: page.is_green(n))
    assert not [name for name in MATERIALIZED if "Never" in page.node(name)]
    wait_for("the checks pass", lambda: page.checks_pass("position_updates"))


def test_the_history_of_the_ledger_shows_the_events_of_ticks_with_their_numbers(demo, page):
    page.open("/assets/position_updates?view=events")
    page.wait_for_text("rows_drained", "rows_streamed", "delta_version")


ROWS_OF_BOOK = """
return [...document.querySelectorAll('#book tbody tr')].map(row => [
  row.querySelector('td')?.className ?? '', ...[...row.cells].map(cell => cell.innerText)]);
"""
FOREIGN = """
return performance.getEntriesByType('resource').map(one => one.name)
  .filter(one => !one.startsWith(location.origin) && !/^(blob|data):/.test(one));
"""
AGED = "return document.body.classList.contains('aged')"
IMAGES = "return document.querySelectorAll('table img').length + document.images.length"
MARKUP = "<img src=x onerror=document.title='taken'>"


def book(page: Page, kind: str) -> dict[str, list[str]]:
    """Return the cells of the rows of a kind, by their name; none while the table is not there."""
    with suppress(WebDriverException):
        rows = page.driver.execute_script(ROWS_OF_BOOK)
        return {row[1].strip("▸▾ "): row[2:] for row in rows if row[0] == kind}
    return {}


def of_strategies(page: Page, name: str) -> dict[str, float]:
    """Return a column of the book by strategy, in whole units."""
    headings = page.driver.execute_script(HEADINGS)
    column = headings.index(name) - 1
    numbers = {}
    for strategy, cells in book(page, "group").items():
        with suppress(ValueError):
            numbers[strategy] = number(cells[column])
    return numbers


def number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


HEADINGS = "return [...document.querySelectorAll('#book th')].map(cell => cell.innerText)"


def is_as_in_tables(demo: Demo, page: Page, column: str, name: str) -> bool:
    """Return whether the book has the sums of the tables; what no strategy has moves on."""
    sums = json_of("exposure", "--home", str(demo.home))["strategies"]
    expected = {row["name"]: row[name] for row in sums}
    shown = of_strategies(page, column)
    if not expected.keys() <= shown.keys():
        return False
    return {strategy: shown[strategy] for strategy in expected} == pytest.approx(expected, abs=0.51)


def positions(demo: Demo) -> list[dict[str, Any]]:
    """Return the holdings as the command line lists them."""
    answer: list[dict[str, Any]] = json_of("positions", "--home", str(demo.home))
    return answer


@pytest.fixture
def money(demo: Demo, page: Page) -> Page:
    """Return the money page in its first layout; tests of it that follow each other share it."""
    if not page.driver.current_url.endswith("/money"):
        page.driver.get_log("browser")  # what Dagster's own pages have said is not ours
        page.open("/money", size=(1440, 900))
    wait_for("the book has rows", lambda: book(page, "group") or book(page, "leg"))
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
    problems = [entry for entry in money.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert problems == []


def test_the_money_page_sorts_and_filters_and_remembers_it(demo, money):
    money.button("Legs")

    def are_sorted() -> bool:
        values = [number(cells[1]) for cells in book(money, "leg").values()]
        return len(values) > 10 and values == sorted(values)

    wait_for("legs, the worst first", are_sorted)
    money.driver.execute_script(ONLY, "spy-weekly-condor")
    wait_for("the legs of one strategy", lambda: len(book(money, "leg")) == 4)
    money.driver.refresh()
    wait_for("the same after a reload", lambda: len(book(money, "leg")) == 4, told=money.text)
    money.driver.find_element("css selector", "#book td.leg button").click()
    money.wait_for_text(f"position-sync history {ACCOUNT}:", "STREAM")
    link = money.driver.find_element("css selector", "#leg-values a").get_attribute("href")
    assert "/runs/" in str(link)
    money.click("//button[@id='leg-close']")


ONLY = """
import('/money/app/holdings_panel.js').then(module => module.only('strategy', arguments[0]));
"""


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
    run("strategies", "add", *leg, *terms)
    wait_for("its name is shown", lambda: MARKUP in of_strategies(money, "value"))
    money.wait_for_text(MARKUP)
    assert money.driver.execute_script(IMAGES) == 0
    assert money.driver.title.endswith(" · Money")
    run("strategies", "remove", *leg)
