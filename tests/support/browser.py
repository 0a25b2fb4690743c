"""Headless Chromium, the one of the system: nothing is downloaded."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

MISSING = "Chromium is not installed: on Debian and Ubuntu, apt install chromium chromium-driver"

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


def is_installed() -> bool:
    """Return whether Chromium and its driver are on the path."""
    return CHROMIUM is not None and DRIVER is not None


@contextmanager
def browser(*, width: int = 1440, height: int = 900) -> Iterator[webdriver.Chrome]:
    """Start Chromium with a profile of its own, and end it with the block."""
    options = Options()
    options.binary_location = CHROMIUM or ""
    options.page_load_strategy = "eager"
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for argument in (
            *ARGUMENTS,
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
        ):
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
        try:
            yield driver
        finally:
            driver.quit()
