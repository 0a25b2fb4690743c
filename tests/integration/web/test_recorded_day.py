"""The recorded day of the site: pages of the program that show it, without a server of ours."""

import mimetypes
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import pytest

from docs.recorded_files import recorded_pages
from tests.support.browser import MISSING, Page, is_installed, open_page
from tests.support.demo_program import wait_for
from tests.support.receiver import Answer, serving

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

ASKED = "return performance.getEntriesByType('resource').map(entry => entry.name)"

EARLIER = """
const slider = document.querySelector('#moment');
slider.value = (Number(slider.min) + Number(slider.max)) / 2;
slider.dispatchEvent(new Event('input', {bubbles: true}));
slider.dispatchEvent(new Event('change', {bubbles: true}));
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Page]:
    """A browser over a server that has these files, and nothing else."""
    files = dict(recorded_pages())

    def answer(request: BaseHTTPRequestHandler) -> Answer:
        name = urlsplit(request.path).path.removeprefix("/")
        if name not in files:
            return 404, {}, b""
        return 200, {"Content-Type": mimetypes.guess_type(name)[0] or "text/plain"}, files[name]

    with serving(answer) as port, open_page(port) as page:
        yield page


def shown(page: Page, query: str) -> str:
    """The text of an element."""
    return str(page.driver.execute_script(f"return document.querySelector('{query}').innerText"))


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("money", ("spy-weekly-condor", "Needs a decision", "What changed")),
        ("risk", ("What if", "spy-weekly-condor")),
        ("results", ("Campaigns", "DUSIM0001")),
    ],
)
def test_a_page_shows_the_recorded_day_asks_nobody_else_and_has_no_fault(site, name, texts):
    site.driver.get_log("browser")
    site.open(f"/{name}.html")
    wait_for(f"{texts}", lambda: all(text.casefold() in site.text().casefold() for text in texts))

    origin = site.address("/")
    assert [
        asked for asked in site.driver.execute_script(ASKED) if not asked.startswith(origin)
    ] == []
    faults = [
        entry["message"] for entry in site.driver.get_log("browser") if entry["level"] == "SEVERE"
    ]
    assert [fault for fault in faults if "favicon" not in fault] == []


def test_its_slider_shows_another_moment_in_the_book(site):
    site.open("/money.html")
    wait_for("the book", lambda: "spy-weekly-condor" in shown(site, "#book"))
    live = shown(site, "#book")

    site.driver.execute_script(EARLIER)

    wait_for("a moment", lambda: shown(site, "#moment-text").startswith("as of"), within_s=60)
    wait_for("other figures", lambda: shown(site, "#book") not in ("", live), within_s=60)
