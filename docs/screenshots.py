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
    GROUPS,
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
                money(page)
        finally:
            demo.close()
    return 0


def lineage(page: Page) -> None:
    """Save the whole graph at the size of a laptop, once everything is green and in sync."""

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

    for group, green in (
        ("position_values", path_is_green),
        ("position_reports", reports_are_green),
    ):
        page.open(LINEAGE.format(group=group), size=WHOLE_GRAPH)
        wait_for(f"everything in {group} is green", green)
    page.open(GROUPS, size=LAPTOP)
    page.wait_for_text("broker_account", "position_values", "position_reports")
    wait_for("the states of the groups are there", lambda: "fetching" not in page.text())
    save(page, "lineage.png")


def daily(page: Page) -> None:
    """Save the backfill that a newcomer can launch."""
    page.open("/assets/daily_positions?view=partitions", size=(1500, 950))
    page.click("//button[starts-with(normalize-space(), 'Materialize')]")
    page.button("Missing")
    page.wait_for_text("partitions")
    save(page, "daily-positions.png")


def money(page: Page) -> None:
    """Save the money page, a leg opened."""
    page.open("/money", size=LAPTOP)
    wait_for("the grid has rows", lambda: page.driver.execute_async_script(OPEN_STRATEGY))
    wait_for("nothing is grey", lambda: not page.driver.execute_script(AGED))
    save(page, "money.png")


AGED = "return document.body.classList.contains('aged')"
# Opens a strategy down to its legs, once the grid has rows.
OPEN_STRATEGY = """
const done = arguments[0];
(async () => {
  const grid = document.querySelector('#grid');
  const [view, plugin] = [await grid.getView(), await grid.getPlugin()];
  for (const depth of [1, 2, 3]) {
    const at = plugin.model._ids.findIndex(
      path => path.length === depth && path[0] === 'iron-condor-1');
    if (at < 0) return false;
    await view.expand(at);
    await grid.resize(true);
  }
  return true;
})().then(done, () => done(false));
"""


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
        few = small.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(DOCS / name, format="PNG", optimize=True)
    sys.stdout.write(f"docs/{name}\n")


if __name__ == "__main__":
    sys.exit(main())
