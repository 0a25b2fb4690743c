"""The money page over 20,000 legs in 2,000 strategies, in a real browser."""

from collections.abc import Iterator

import pytest
from selenium.webdriver.common.keys import Keys

from position_sync_dagster.web.served_figures import PageFigures
from tests.support.browser import MISSING, Page, is_installed, open_page
from tests.support.demo_program import wait_for
from tests.support.large_lake import make_lake
from tests.support.receiver import serving_pages

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

LEGS = 20_000
NAMES = 400
STRATEGIES = 2_000

# A page that made elements of all rows would have some 300,000.
MOST_ELEMENTS = 8_000

ROWS = """
return [...document.querySelectorAll('#book tbody tr')].map(row => row.innerText.trim())
  .filter(text => text)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    settings = make_lake(tmp_path_factory.mktemp("large") / "lake", LEGS, NAMES, rounds=1)
    with serving_pages(PageFigures(settings)) as port, open_page(port) as page:
        page.open("/money", size=(1440, 900))
        page.wait_for_text(f"0 of {LEGS}")
        yield page


def elements(page: Page) -> int:
    count: int = page.driver.execute_script("return document.querySelectorAll('*').length")
    return count


def rows(page: Page) -> list[str]:
    answer: list[str] = page.driver.execute_script(ROWS)
    return answer


def test_the_search_finds_a_leg_and_shows_the_legs_of_a_strategy_alone(page):
    def matches() -> list[str]:
        script = "return [...document.querySelectorAll('#matches li')].map(li => li.innerText)"
        answer: list[str] = page.driver.execute_script(script)
        return answer

    wait_for("rows", lambda: len(rows(page)) > 20)
    box = page.driver.find_element("css selector", "input[type=search]")
    box.send_keys("sym399 85c")
    wait_for("the legs", lambda: any("SYM399 85C" in text for text in matches()), told=matches)
    # The matches of the text before are still listed: none of them is opened.
    box.clear()
    box.send_keys("SYM399-4", Keys.ENTER)
    its_legs = "the total and its ten legs"
    wait_for(its_legs, lambda: len(rows(page)) == 11, told=lambda: rows(page))
    page.button("All")
    wait_for("all again", lambda: len(rows(page)) > 20)


def test_all_legs_scroll_and_only_those_on_the_screen_are_elements(page):
    count = "return document.querySelector('#book table').ariaRowCount"

    def count_is(expected: int) -> bool:
        """Return whether there are so many rows beside the headings and the total."""
        return int(page.driver.execute_script(count)) == expected + 2

    wait_for("all strategies", lambda: count_is(STRATEGIES))
    page.button("Legs")
    wait_for("all legs", lambda: count_is(LEGS))
    first = rows(page)
    page.driver.execute_script("const box = document.querySelector('#book'); box.scrollTop = 1e9")
    wait_for("the last ones", lambda: rows(page)[-1] not in first)
    assert elements(page) < MOST_ELEMENTS
