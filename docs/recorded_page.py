"""Record a day of the demo for the site: `python -m docs.recorded_page` writes docs/recorded/.

The site shows the money page without a server: the page's own files, and `recorded.js`, which
answers its questions from what is recorded here. `docs/recorded_files.py` puts them together.
"""

import json
import lzma
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from docs.recorded_files import ANSWERS, SHOWN
from tests.support.browser import MISSING, Page, is_installed, open_page
from tests.support.demo_program import LEGS, Demo, wait_for

# How long the day is: after 40 s it has fills, a roll, an assignment, an expiry and an outage.
DAY_S = 220.0
# Between two moments of the slider, in seconds.
STEP_S = 20.0
# Until a page that was opened has asked for all that it shows first.
SETTLED_S = 15.0

# The strategies whose legs open.
OPENED = ("spy-weekly-condor", "aapl-short-put", "qqq-condor")

ASKED = "return performance.getEntriesByType('resource').map(entry => entry.name)"


def main() -> int:
    """Start a demo, let its day go by, and write what its pages ask and are answered."""
    if not is_installed():
        sys.stderr.write(f"{MISSING}\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="recorded-") as folder:
        demo = Demo(Path(folder) / ".demo", calm=False)
        try:
            began = wait_for("all legs are current", lambda: _since_when(demo))
            time.sleep(DAY_S)
            with open_page(demo.ui_port) as page:
                recorded = record(page, f"http://127.0.0.1:{demo.ui_port}", began)
        finally:
            demo.close()
    text = json.dumps(recorded, separators=(",", ":"))
    ANSWERS.write_bytes(lzma.compress(text.encode(), preset=9))
    print(f"{len(text):,} characters, {ANSWERS.stat().st_size:,} bytes")  # noqa: T201
    return 0


def _since_when(demo: Demo) -> datetime | None:
    """Return the present moment if the pages answer and all legs are current."""
    address = f"http://127.0.0.1:{demo.ui_port}/api/v1/header"
    try:
        header = httpx.get(address, timeout=60, trust_env=False)
    except httpx.TransportError:  # nothing listens yet
        return None
    if header.status_code != httpx.codes.OK or header.json()["current"] != LEGS:
        return None
    return datetime.now(UTC)


def record(page: Page, server: str, began: datetime) -> dict[str, Any]:
    """Return what pages ask live, the feed and the legs at each moment, and when it ended."""
    client = httpx.Client(base_url=server, timeout=120, trust_env=False)
    page.open(SHOWN["money"])
    live = {"/money/data?": wait_for("all is computed", lambda: _whole(client), poll_s=1)}
    end = datetime.now(UTC)
    for path in SHOWN.values():
        page.open(path)
        time.sleep(SETTLED_S)
        for address in page.driver.execute_script(ASKED):
            asked = httpx.URL(address)
            if asked.path.startswith("/api/v1/"):
                live[key_of(asked)] = client.get(asked.raw_path.decode()).json()

    for strategy in OPENED:
        legs = client.get("/api/v1/positions", params={"strategy": strategy}).json()
        for leg in legs["positions"]:
            of_leg = {"account": leg["account"], "conid": leg["conid"]}
            asked = httpx.URL("/api/v1/leg", params=of_leg)
            live[key_of(asked)] = client.get(asked.raw_path.decode()).json()

    feed = [
        {
            "time": round(at.timestamp() * 1000),
            "content": client.get("/money/data", params={"at": at.isoformat()}).json(),
        }
        for at in moments(began, end)
    ]
    return {"live": live, "past": {"/money/data?": feed}, "end": round(end.timestamp() * 1000)}


def _whole(client: httpx.Client) -> dict[str, Any] | None:
    """Return what the feed says once it has what is computed beside it."""
    message: dict[str, Any] = client.get("/money/data?after=0").json()
    figures = message["figures"]
    return message if figures["decisions"] is not None and figures["curves"] else None


def moments(began: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the moments that the slider shows."""
    while began < end:
        yield began
        began += timedelta(seconds=STEP_S)


def key_of(asked: httpx.URL) -> str:
    """Return the key of a question, as `recorded.js` makes it.

    >>> key_of(httpx.URL("/api/v1/leg?conid=7&account=DU1&at=2026-01-02T00:00:00Z"))
    '/api/v1/leg?account=DU1&conid=7'
    """
    others = [(name, text) for name, text in asked.params.multi_items() if name != "at"]
    return f"{asked.path}?{urlencode(sorted(others))}"


if __name__ == "__main__":
    sys.exit(main())
