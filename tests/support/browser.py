"""Headless Chromium, the one of the system, over Dagster's UI: nothing is downloaded."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.demo_program import LIMIT_S, wait_for

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")

MISSING = "no Chromium here: `apt install chromium chromium-driver` on Debian and Ubuntu"

ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update"),
    *("--no-first-run", "--disable-sync"),
)

# The page of the whole lineage, with all assets.
LINEAGE = "/asset-groups"

# A window in which it shows all of them at their full size.
WHOLE_GRAPH = (2300, 2450)

NODE = "//*[local-name()='foreignObject'][.//*[@data-tooltip='{name}']]"

STATUS_COLOUR = """
const rows = [...arguments[0].querySelectorAll('span')];
const row = rows.find(one => one.textContent === 'Materialized');
return row ? getComputedStyle(row.parentElement).backgroundColor : '';
"""


def is_installed() -> bool:
    """Return whether Chromium and its driver are on the path."""
    return CHROMIUM is not None and DRIVER is not None


BUTTON = "//button[normalize-space()='{label}']"


class Page:
    """One window over the UI of a running demo."""

    def __init__(self, driver: webdriver.Chrome, ui_port: int) -> None:
        self.driver = driver
        self._origin = f"http://127.0.0.1:{ui_port}"

    def over(self, ui_port: int) -> "Page":
        """Return the same window over another UI."""
        return Page(self.driver, ui_port)

    def address(self, path: str) -> str:
        """Return the address of a page."""
        return self._origin + path

    def open(self, path: str, *, size: tuple[int, int] = (1600, 1100)) -> None:
        """Open a page of the UI in a window of a size."""
        self.driver.set_window_size(*size)
        self.driver.get(self.address(path))

    def text(self) -> str:
        """Return all text that is shown; empty while the page changes."""
        with suppress(WebDriverException):
            return self.driver.find_element(By.TAG_NAME, "body").text
        return ""

    def wait_for_text(self, *texts: str) -> None:
        """Wait until the page shows each of the texts."""
        wait_for(f"the page shows {texts}", lambda: all(text in self.text() for text in texts))

    def click(self, xpath: str) -> None:
        """Click what an XPath finds, once it is there and enabled."""
        wait_for(f"a click on {xpath}", lambda: self._clicked(xpath))

    def button(self, label: str) -> None:
        """Click the button with a label."""
        self.click(BUTTON.format(label=label))

    def _clicked(self, xpath: str) -> bool:
        with suppress(WebDriverException):
            found = [e for e in self.driver.find_elements(By.XPATH, xpath) if e.is_enabled()]
            if found:
                self.show(found[-1])
                found[-1].click()
                return True
        return False

    def show(self, element: WebElement) -> None:
        """Scroll to an element."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)

    def node(self, name: str) -> str:
        """Return the text of an asset on the lineage page; empty where it is not shown."""
        with suppress(WebDriverException):
            node = self.driver.find_element(By.XPATH, NODE.format(name=name))
            return node.get_attribute("textContent") or ""
        return ""

    def has_small_node(self, name: str) -> bool:
        """Return whether the lineage page draws an asset, also too small for details."""
        small = f"//*[local-name()='foreignObject'][contains(., '{name}')]"
        return bool(self.driver.find_elements(By.XPATH, small))

    def is_green(self, name: str) -> bool:
        """Return whether the lineage page shows an asset as materialized, in green, and in sync."""
        with suppress(WebDriverException):
            node = self.driver.find_element(By.XPATH, NODE.format(name=name))
            colour = str(self.driver.execute_script(STATUS_COLOUR, node))
            parts = [int(part) for part in re.findall(r"\d+", colour)[:3]]
            return (
                parts != []
                and parts[1] == max(parts) != min(parts)
                and "Unsynced" not in self.node(name)
            )
        return False

    def checks_pass(self, name: str) -> bool | None:
        """Return whether the lineage page shows all checks as passed; None without an answer."""
        match = re.search(r"(\d+) / (\d+) Passed", self.node(name))
        return match[1] == match[2] if match else None


@contextmanager
def open_page(ui_port: int) -> Iterator[Page]:
    """Start Chromium with a profile of its own, and end it with the block."""
    options = Options()
    options.binary_location = CHROMIUM or ""
    options.page_load_strategy = "eager"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
        driver.set_script_timeout(LIMIT_S)  # by itself a script, as of axe, has half a minute
        try:
            yield Page(driver, ui_port)
        finally:
            driver.quit()
