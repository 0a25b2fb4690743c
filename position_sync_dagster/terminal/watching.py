"""Print a result once, or again and again in the same place until Ctrl-C."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from position_sync_dagster.terminal.width import console

if TYPE_CHECKING:
    from rich.console import RenderableType

INTERVAL_S = 2.0


def print_or_watch(render: "Callable[[int], RenderableType]", *, watch: bool) -> None:
    """Print what `render` returns for the width of the output; with `watch`, until Ctrl-C.

    In a pipe each look is printed below the one before.
    """
    output = console()
    if not watch:
        output.print(render(output.width))
        return
    try:
        if output.is_terminal:
            _watch_in_place(output, render)
        while True:
            output.print(render(output.width))
            time.sleep(INTERVAL_S)
    except KeyboardInterrupt:
        return


def _watch_in_place(output, render) -> None:  # type: ignore[no-untyped-def]
    from rich.live import Live

    with Live(console=output, auto_refresh=False, vertical_overflow="crop", screen=True) as live:
        while True:
            live.update(render(output.width), refresh=True)
            time.sleep(INTERVAL_S)
