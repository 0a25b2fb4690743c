"""The results page in headless Chromium, over two campaigns that are over."""

from collections.abc import Iterator

import pytest
from selenium.webdriver.support.select import Select
from starlette.applications import Starlette

from position_sync_dagster.web.money_page import money_routes
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.web.test_pages import violations
from tests.integration.web.test_results import lake, materialize
from tests.integration.web.test_risk_page import first
from tests.support.browser import MISSING, Page, is_installed, open_page
from tests.support.demo_program import wait_for
from tests.support.receiver import serving_app

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

__all__ = ["lake", "materialize"]  # the lake of test_results.py


@pytest.fixture
def page(materialize, settings) -> Iterator[Page]:
    materialize()
    routes = money_routes(dagster=False, open_figures=lambda: PageFigures(settings))
    with serving_app(Starlette(routes=routes)) as port, open_page(port) as page:
        yield page


def cells(page: Page, selector: str) -> list[str]:
    return [cell.text for cell in page.driver.find_elements("css selector", f"{selector} td")]


def test_days_groups_and_the_curve_are_shown_and_a_line_opens_its_campaign(page):
    """Two puts brought 2 × 300 less 2.60; on the second day the holdings lost 300."""
    page.open("/money/results", size=(1440, 900))
    wait_for("the groups", lambda: "csp" in cells(page, "#groups-table"), told=page.text)
    assert {"1", "100.0 %", "597", "3"} <= {*cells(page, "#groups-table")}
    assert "3\n−300" in cells(page, "#calendar-table")
    assert "realised since the first day 597" in first(page, "#realised-chart .reading").text
    Select(first(page, "#of-day")).select_by_visible_text("realised")
    wait_for("what was realised", lambda: "6\n597" in cells(page, "#calendar-table"))
    Select(first(page, "#by")).select_by_visible_text("month")
    wait_for("the month", lambda: "2026-03" in cells(page, "#groups-table"))
    assert not first(page, "#campaign").is_displayed()

    page.click("//table[@id='campaigns-table']//button[text()='csp']")
    wait_for("its fills", lambda: len(cells(page, "#campaign-fills")) == 16, told=page.text)
    assert "campaign=" in page.driver.current_url
    assert "1,000.00 / 400.00" in first(page, "#campaign-facts").text
    page.driver.refresh()
    wait_for("the address opens it", lambda: len(cells(page, "#campaign-fills")) == 16)

    wait_for("the sixth", lambda: page.driver.execute_script(OPEN_DAY, "6"))
    wait_for("the day", lambda: first(page, "#day").text.startswith("2026-03-06: "), told=page.text)
    assert "csp" in cells(page, "#day-campaigns")
    assert "closes" in cells(page, "#day-trades")

    none = "No trading day with its books is known."
    wait_for("no returns", lambda: first(page, "#returns-none").text == none, told=page.text)
    wait_for("costs", lambda: "csp" in cells(page, "#costs-table"), told=page.text)

    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    wide = "return document.documentElement.scrollWidth"
    wait_for("nothing is wider", lambda: page.driver.execute_script(wide) == 390)
    wait_for("axe finds nothing", lambda: violations(page) == [], told=lambda: violations(page))


OPEN_DAY = """
const cells = [...document.querySelectorAll('#calendar-table td')];
const day = cells.find(cell => cell.querySelector('span')?.innerText === arguments[0]);
const button = day?.querySelector('button');
button?.click();
return Boolean(button);
"""
