"""The files that show a recorded day of the demo: pages of the program, and the answers to them.

`docs/recorded_page.py` records the day, and `docs/site.py` puts these files into the site.
"""

import lzma
import re
from collections.abc import Iterator
from pathlib import Path

from position_sync_dagster.terminal.text import PROGRAM_NAME
from position_sync_dagster.web.money_page import page_html

ROOT = Path(__file__).parents[1]

# The recorded day of the demo, and the pages of the program that show it, by their names there.
RECORDED = ROOT / "docs/recorded"
ANSWERS = RECORDED / "answers.json.xz"
STATIC = ROOT / "position_sync_dagster/web/static"
SHOWN = {"money": "/money", "risk": "/money/risk", "results": "/money/results"}


def recorded_pages() -> Iterator[tuple[str, bytes]]:
    """Yield the files that play the recorded day without a server, by their place.

    They are the program's own pages and modules; `recorded.js` answers what these ask. Without a
    recording (`make recorded-day`) there are none.
    """
    if not ANSWERS.exists():
        return

    for name, path in SHOWN.items():
        yield f"{name}.html", standing_alone(page_html(path)).encode()
    for file in filter(Path.is_file, STATIC.rglob("*")):
        yield file.relative_to(STATIC).as_posix(), file.read_bytes()
    yield "recorded.js", (RECORDED / "recorded.js").read_bytes()
    yield "answers.json", lzma.decompress(ANSWERS.read_bytes())


def standing_alone(html: str) -> str:
    """Return a page of the program whose files are beside it, and that asks the recording."""
    for name, path in SHOWN.items():
        html = html.replace(f'href="{path}"', f'href="{name}.html"')
    html = html.replace('"/money/', '"')
    html = re.sub(r'data-program="[^"]*"', f'data-program="{PROGRAM_NAME}"', html)
    html = re.sub(r'data-home="[^"]*"', 'data-home="--home .demo"', html)
    return html.replace("<head>", '<head>\n<script src="recorded.js"></script>', 1)
