"""Take the pictures of the documents from a running demo: `make screenshots`.

The demo runs in a folder of its own. Its pages are shown by headless Chromium. Nothing is drawn by
hand.
"""

import io
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from position_sync_dagster.processes.supervisor import is_serving
from tests.support.browser import (
    LINEAGE,
    MISSING,
    WHOLE_GRAPH,
    Page,
    is_installed,
    open_page,
)
from tests.support.demo_program import Demo, wait_for

DOCS = Path(__file__).parent

# The width of the pictures, in pixels.
WIDTH = 1500

# The size of the window.
LAPTOP = (1440, 900)

# Seconds that the demo runs after the graph is green, so that the pictures show some events.
LIVE_S = 260.0


def main() -> int:
    """Start a demo, take the pictures, and end it."""
    if not is_installed():
        sys.stderr.write(f"{MISSING}\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder:
        home = Path(folder) / ".demo"
        demo = Demo(home, calm=False)
        try:
            wait_for("the UI answers", lambda: is_serving(demo.ui_port))
            with open_page(demo.ui_port) as page:
                lineage(page)
                daily(page)
                time.sleep(LIVE_S)
                pages(page)
                past(page)
                states(page, demo)
        finally:
            demo.close()
    return 0


def lineage(page: Page) -> None:
    """Save the whole graph, once its assets are green and in sync."""

    def path_is_green() -> bool:
        names = ("position_queue", "position_updates")
        return (
            all(page.is_green(name) for name in names)
            and page.checks_pass("position_updates") is True
        )

    def reports_are_green() -> bool:
        names = ("latest_positions", "strategy_exposure")
        return all(page.is_green(name) for name in names) and "% filled" in page.node(
            "daily_positions"
        )

    page.open(LINEAGE, size=WHOLE_GRAPH)
    wait_for("the way of a value is green", path_is_green)
    wait_for("the reports are green", reports_are_green)
    save(page, "lineage.png")


def daily(page: Page) -> None:
    """Save the backfill that a newcomer can launch."""
    page.open("/assets/daily_positions?view=partitions", size=(1500, 950))
    page.click("//button[starts-with(normalize-space(), 'Materialize')]")
    page.button("Missing")
    page.wait_for_text("partitions")
    save(page, "daily-positions.png")


def pages(page: Page) -> None:
    """Save each page at three widths and in two themes, and a leg that is opened."""
    for name, ready in PAGES.items():
        for suffix in WINDOWS:
            open_window(page, suffix, f"/money{ADDRESSES[name]}")
            wait_for(f"{name} is drawn", lambda: page.driver.execute_async_script(ready))  # noqa: B023
            wait_for("all is computed", lambda: "Not computed yet" not in page.text())
            wait_for("the header has numbers", lambda: page.driver.execute_script(NUMBERS))
            wait_for("nothing is wrong", lambda: page.driver.execute_script(QUIET))
            save(page, f"{name}{suffix}.png")

    open_window(page, "", "/money")
    wait_for("the book has rows", lambda: page.driver.execute_async_script(OPEN_STRATEGY))
    page.driver.execute_async_script(OPEN_LEG)
    wait_for("its values", lambda: page.driver.execute_script(VALUES) > 1)
    save(page, "money-leg.png")


def past(page: Page) -> None:
    """Save the money page as of a past moment, and what trading cost and accounts returned."""
    open_window(page, "", "/money")
    wait_for("the book has rows", lambda: page.driver.execute_async_script(OPEN_STRATEGY))
    wait_for("the curves", lambda: page.driver.execute_script(MOVE_SLIDER))
    page.wait_for_text("as of")
    save(page, "money-past.png")

    open_window(page, "", "/money/results")
    wait_for("costs", lambda: page.driver.execute_async_script(HAS_NUMBERS % "#costs-table"))
    page.driver.execute_script("document.querySelector('#returns').scrollIntoView()")
    save(page, "results-costs.png")


def states(page: Page, demo: Demo) -> None:
    """Save the money page while the gateway is cut off, and while another session has the lines."""
    demo.post("connectivity", state="lost")
    state(page, "blind", "BLIND")
    demo.post("connectivity", state="restored_data_kept")
    page.wait_for_text("LIVE")

    demo.post("permissions", code=COMPETING_SESSION)
    state(page, "no-lines", f"{COMPETING_SESSION}")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def state(page: Page, name: str, said: str) -> None:
    """Save the money page in a state, which it says in words."""
    for suffix in WINDOWS:
        open_window(page, suffix, "/money")
        wait_for("the book has rows", lambda: page.driver.execute_async_script(OPEN_STRATEGY))
        page.wait_for_text(said, "Needs a decision")
        save(page, f"money-{name}{suffix}.png")


def open_window(page: Page, suffix: str, path: str) -> None:
    """Open a page in a window of a width and a theme."""
    width, height, theme = WINDOWS[suffix]
    window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    page.open("/money/app.css")
    page.driver.execute_script(THEME, theme)
    page.open(path)


# What ends the names of pictures, with the width and the height of their windows, and the theme.
WINDOWS = {
    "-phone-light": (390, 844, "light"),
    "-phone": (390, 844, "dark"),
    "-tablet-light": (1024, 768, "light"),
    "-tablet": (1024, 768, "dark"),
    "-light": (*LAPTOP, "light"),
    "": (*LAPTOP, "dark"),
}

ADDRESSES = {"money": "", "risk": "/risk?strategy=qqq-condor", "results": "/results"}

# What another program of the same user does to the lines of this one (IB, "Message codes").
COMPETING_SESSION = 10197

THEME = "localStorage.clear(); localStorage.setItem('money.theme', arguments[0])"
VALUES = "return document.querySelectorAll('#leg-values tbody tr').length"
OPEN_LEG = """
const done = arguments[0];
(async () => {
  const { parts } = await import('/money/app/parts.js');
  const { openLeg } = await import('/money/app/leg_panel.js');
  await openLeg([...parts.values()].find(part => part.strategy === 'spy-weekly-condor'));
})().then(done, done);
"""
NUMBERS = "return document.querySelectorAll('#numbers dd').length > 5"
QUIET = """
return !document.body.classList.contains('aged') && document.querySelector('#alert').hidden;
"""
# Moves the slider of the day back by a third of it, once there are curves.
MOVE_SLIDER = """
const slider = document.querySelector('#moment');
if (slider.max - slider.min < 60) return false;
slider.value = Number(slider.max) - (slider.max - slider.min) / 3;
slider.dispatchEvent(new Event('input'));
return true;
"""
# Opens a strategy, once the book has rows.
OPEN_STRATEGY = """
const done = arguments[0];
const names = [...document.querySelectorAll('#book td.group button')];
const strategy = names.find(name => name.innerText.includes('spy-weekly-condor'));
if (strategy?.getAttribute('aria-expanded') === 'false') strategy.click();
done(Boolean(strategy));
"""

# Whether there are numbers in a table that a page draws last.
HAS_NUMBERS = """
const done = arguments[0];
done([...document.querySelectorAll('%s td')].some(cell => /[0-9]/.test(cell.textContent)));
"""
PAGES = {
    "money": OPEN_STRATEGY,
    "risk": HAS_NUMBERS % "#matrices",
    "results": HAS_NUMBERS % "#campaigns",
}


def save(page: Page, name: str) -> None:
    """Store a screenshot of the page, 1 s later, since pages fade in."""
    time.sleep(1.0)
    store(page.driver.get_screenshot_as_png(), name, width=WIDTH)


def store(png: bytes, name: str, *, width: int) -> None:
    """Write a picture to this folder, at most `width` pixels wide."""
    with Image.open(io.BytesIO(png)) as image:
        height = round(image.height * min(1.0, width / image.width))
        small = image.convert("RGB").resize(
            (min(width, image.width), height), Image.Resampling.LANCZOS
        )
        few = small.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(DOCS / name, format="PNG", optimize=True)
    sys.stdout.write(f"docs/{name}\n")


if __name__ == "__main__":
    sys.exit(main())
