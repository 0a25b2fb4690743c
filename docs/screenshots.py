"""Take the pictures of the documents from a running demo: `make screenshots`.

The demo runs in a pseudo terminal and in a folder of its own. Its pages are shown by headless
Chromium; the terminal's last frame is drawn by rich. Nothing is drawn by hand.
"""

import fcntl
import io
import os
import re
import struct
import sys
import tempfile
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path

from PIL import Image, ImageOps
from rich.console import Console
from rich.text import Text

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
ROOT = DOCS.parent

COLUMNS, ROWS = 112, 36
"""The size of the terminal."""

WIDTH = 1500
"""The width of the pictures, in pixels."""

LAPTOP = (1440, 900)
"""The size of the window."""

LIVE_S = 260.0
"""Seconds that the demo runs after the graph is green, so that the pictures show some events."""

FRAME = re.compile(rb"\x1b\[2K")
"""The code by which rich erases the previous frame, before each frame."""


class Terminal:
    """A pseudo terminal for the demo, and the newest bytes written to it."""

    def __init__(self) -> None:
        self._master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._written = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._master, 65536):
                self._written = (self._written + data)[-200_000:]

    def frame(self) -> str:
        """Return the last frame that was drawn completely, with its colours."""
        frames = [part for part in FRAME.split(self._written) if b"Ctrl-C" in part]
        return frames[-1].decode(errors="replace") if frames else ""


def main() -> int:
    """Start a demo, take the pictures, and end it."""
    if not is_installed():
        sys.stderr.write(f"{MISSING}\n")
        return 1
    terminal = Terminal()
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder:
        home = Path(folder) / ".demo"
        demo = Demo(home, terminal=terminal.slave, calm=False)
        try:
            wait_for("the UI answers", lambda: is_serving(demo.ui_port))
            with open_page(demo.ui_port) as page:
                lineage(page)
                daily(page)
                time.sleep(LIVE_S)
                exposure(page)
                checks(page)
                money(page)
                # With the paths that `make demo` shows in a checkout.
                frame = terminal.frame().replace(str(home), ".demo").replace(f"{ROOT}/", "")
                frame = frame.replace(f":{demo.ui_port}", ":3000")
                draw_terminal(page, frame, Path(folder))
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
        return all(page.is_green(name) for name in names) and "50% filled" in page.node(
            "daily_positions"
        )

    for group, green in (("path", path_is_green), ("reports", reports_are_green)):
        page.open(LINEAGE.format(group=group), size=WHOLE_GRAPH)
        wait_for(f"everything in {group} is green", green)
    page.open(GROUPS, size=LAPTOP)
    page.wait_for_text("account", "path", "reports")
    wait_for("the states of the groups are there", lambda: "fetching" not in page.text())
    save(page, "lineage.png")


def exposure(page: Page) -> None:
    """Save the table of strategies, and the picture of the day."""
    page.open("/assets/strategy_exposure?view=events", size=LAPTOP)
    page.wait_for_text("money USD", "iron-condor-1", "daily USD")
    save(page, "strategy-exposure.png")
    show_picture(page)
    image = page.driver.find_element("xpath", "//img[contains(@src, 'data:image/png')]")
    (DOCS / "day.png").write_bytes(image.screenshot_as_png)


def show_picture(page: Page) -> None:
    """Open the newest picture of the day: the event of a quarter of an hour has it."""
    link = "//a[contains(@href, 'view=events&time=')]"
    if page.driver.find_elements("xpath", link):
        page.driver.get(str(page.driver.find_element("xpath", link).get_attribute("href")))
    page.click("//*[text()='[Show Markdown]']")
    wait_for("a picture is drawn", lambda: page.largest_picture() >= (600, 300))


def daily(page: Page) -> None:
    """Save the backfill that a newcomer can launch."""
    page.open("/assets/daily_positions?view=partitions", size=(1500, 950))
    page.click("//button[starts-with(normalize-space(), 'Materialize')]")
    page.button("Missing")
    page.wait_for_text("5 partitions")
    save(page, "daily-positions.png")


def money(page: Page) -> None:
    """Save the money page: dark in a wide window, and light in a narrow one, a leg opened."""
    for name, size, theme in (
        ("money", (1440, 900), "dark"),
        ("money-narrow", (400, 800), "light"),
    ):
        page.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False},
        )
        page.open("/money", size=size)
        page.driver.execute_script(
            "localStorage.clear(); localStorage.setItem('money.theme', arguments[0])", theme
        )
        page.driver.refresh()
        wait_for("the grid has rows", lambda: page.driver.execute_async_script(OPEN_STRATEGY))
        wait_for("nothing is grey", lambda: not page.driver.execute_script(AGED))
        save(page, f"{name}.png")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


AGED = "return document.body.classList.contains('aged')"
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
"""Opens a strategy down to its legs, once the grid has rows."""


def checks(page: Page) -> None:
    """Save the checks of the ledger."""
    page.open("/assets/position_updates?view=checks", size=(1500, 950))
    page.wait_for_text("a_stream_watches", "A stream sees the gateway.")
    save(page, "checks.png")


def draw_terminal(page: Page, frame: str, folder: Path) -> None:
    """Save a frame of the terminal, as rich draws it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(frame.replace("\r", "").strip("\n")))
    drawn = folder / "terminal.svg"
    drawn.write_text(console.export_svg(title="make demo"), encoding="utf-8")
    page.driver.set_window_size(1300, 1400)
    page.driver.get(drawn.as_uri())
    svg = page.driver.find_element("xpath", "/*")
    with Image.open(io.BytesIO(svg.screenshot_as_png)) as image:
        drawn_box = ImageOps.invert(image.convert("L")).getbbox()
        output = io.BytesIO()
        image.crop(drawn_box).save(output, format="PNG")
    store(output.getvalue(), "demo-terminal.png", width=1200)


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
