"""The strategies of the demo, as the first start of a home writes them."""

from datetime import date
from importlib.resources import files

from ib_gateway_simulator.books.dates import dated, today


def strategies_text(day: date | None = None) -> str:
    """Return the strategies file of a demo that starts on a day; None: today."""
    written = files("ib_gateway_simulator").joinpath("books/demo_strategies.yaml").read_text()
    return dated(written, day or today()).replace("history", "2026-01-02")
