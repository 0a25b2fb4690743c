"""Draw the diagrams of the documents: `python -m docs.drawn_diagrams` writes docs/diagrams/*.svg.

A diagram is boxes at places of a grid of 10 pixels, and arrows between points of it. The pictures
follow the reader's light or dark, need no network and no script, and a repository shows them too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from xml.etree import ElementTree

FOLDER = Path(__file__).parent / "diagrams"

# Pixels of a step of the grid, and between two lines of a text.
STEP = 10
LINE = 18

STYLE = """
svg { font: 14px system-ui, sans-serif; color-scheme: light dark; }
.ground { fill: #ffffff; } text { fill: #1f2430; } .small { font-size: 12.5px; fill: #5a6272; }
.box { fill: #f2f4f8; stroke: #9aa3b5; } .main { fill: #e3edff; stroke: #3b6fd4; }
.good { fill: #e4f5ea; stroke: #2f8a55; } .bad { fill: #fdeaea; stroke: #c24141; }
.arrow { fill: none; stroke: #5a6272; stroke-width: 1.5; } .tip { fill: #5a6272; }
@media (prefers-color-scheme: dark) {
.ground { fill: #161a22; } text { fill: #e6e9f0; } .small { fill: #a7b0c0; }
.box { fill: #222834; stroke: #56607a; } .main { fill: #1d2f52; stroke: #6b9bff; }
.good { fill: #17351f; stroke: #4fb477; } .bad { fill: #40201f; stroke: #e07a7a; }
.arrow { stroke: #a7b0c0; } .tip { fill: #a7b0c0; } }
"""


@dataclass(frozen=True, slots=True)
class Box:
    """A box with lines of text; the first one is bold.

    Attributes:
        place: Left, top, width and height, in steps.
        lines: The text.
        kind: A class of the style: box, main, good or bad.
    """

    place: tuple[float, float, float, float]
    lines: tuple[str, ...]
    kind: str = "box"

    def drawn(self) -> Iterator[str]:
        left, top, width, height = (STEP * part for part in self.place)
        yield (
            f'<rect class="{self.kind}" x="{left:g}" y="{top:g}" width="{width:g}"'
            f' height="{height:g}" rx="6"/>'
        )
        first = top + height / 2 - LINE * (len(self.lines) - 1) / 2 + 5
        for number, line in enumerate(self.lines):
            look = ' class="small"' if number else ' font-weight="600"'
            yield (
                f'<text{look} x="{left + width / 2:g}" y="{first + LINE * number:g}"'
                f' text-anchor="middle">{escape(line)}</text>'
            )


@dataclass(frozen=True, slots=True)
class Arrow:
    """A line through points, with a tip at its end and a text.

    Attributes:
        points: At least two places, in steps.
        text: What stands beside it.
        at: Where the text begins.
    """

    points: tuple[tuple[float, float], ...]
    text: str = ""
    at: tuple[float, float] = (0, 0)

    def drawn(self) -> Iterator[str]:
        path = " ".join(f"{STEP * x:g},{STEP * y:g}" for x, y in self.points)
        yield f'<polyline class="arrow" points="{path}" marker-end="url(#tip)"/>'
        yield from Words(self.at, self.text).drawn() if self.text else ()


@dataclass(frozen=True, slots=True)
class Words:
    """A line of small text that begins at a place."""

    at: tuple[float, float]
    text: str

    def drawn(self) -> Iterator[str]:
        x, y = (STEP * part for part in self.at)
        yield f'<text class="small" x="{x:g}" y="{y:g}">{escape(self.text)}</text>'


Part = Box | Arrow | Words


def svg(title: str, size: tuple[float, float], parts: Sequence[Part]) -> str:
    """Return a diagram; its title is what a screen reader says."""
    width, height = (STEP * part for part in size)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
        f' width="{width:g}" height="{height:g}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8"'
        ' markerHeight="8" orient="auto"><path class="tip" d="M0,0 L8,4 L0,8 z"/></marker></defs>',
        f'<rect class="ground" width="{width:g}" height="{height:g}" rx="8"/>',
        *(line for part in parts for line in part.drawn()),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


# The sources of a price, the best first.
PRICES = (
    ("1 MARK", "the broker's mark price, while its line is alive", "main"),
    ("2 LAST", "a trade, at most a minute old, inside bid and ask", "box"),
    ("3 MID", "the middle of bid and ask, if they are not far apart", "box"),
    ("4 MODEL", "the option price of the gateway's own model", "box"),
    ("5 VALUE", "what the broker says the holding is worth", "box"),
    ("unknown", "null: no number, in no sum", "bad"),
)
PROVENANCE = (
    "Each row says",
    "which one it was,",
    "when it was true,",
    "and why no better",
    "one counted",
)


def step(number: int) -> Iterator[Part]:
    """Yield a source of a price, and the arrow from the one before it."""
    name, text, kind = PRICES[number]
    top = 2 + 6 * number
    yield Box((3, top, 16, 4), (name,), kind)
    yield Words((22, top + 2.5), text)
    if number:
        yield Arrow(((11, top - 2), (11, top)), "else", (12, top - 0.6))


DIAGRAMS: dict[str, tuple[str, tuple[float, float], tuple[Part, ...]]] = {
    "lines": (
        "200 legs: 20 are streamed by a line each, 180 are valued from the queue without a line",
        (78, 27),
        (
            Box((2, 9, 15, 8), ("Your account", "200 legs", "100 lines"), "main"),
            Box(
                (23, 2, 24, 8),
                (
                    "20 legs of active strategies",
                    "streamed, one line each",
                    "a row when the value changes,",
                    "each second at most",
                ),
            ),
            Box(
                (23, 16, 24, 8),
                (
                    "180 other legs",
                    "in the queue, no line",
                    "valued from the broker's",
                    "report of the account",
                ),
            ),
            Box((53, 9, 12, 8), ("The ledger", "each value,", "its age,", "its source"), "main"),
            Arrow(((17, 12), (20, 12), (20, 6), (23, 6))),
            Arrow(((17, 14), (20, 14), (20, 20), (23, 20))),
            Arrow(((47, 6), (50, 6), (50, 12), (53, 12))),
            Arrow(((47, 20), (50, 20), (50, 14), (53, 14))),
            Arrow(((65, 13), (69, 13))),
            Words((69.5, 11), "money page"),
            Words((69.5, 13.2), "commands"),
            Words((69.5, 15.4), "programs"),
        ),
    ),
    "programs": (
        "The stream reads the gateway and writes tables; the queue is drained by Dagster's sensor",
        (78, 34),
        (
            Box((2, 2, 18, 6), ("TWS or IB Gateway", "or the simulator")),
            Box((28, 2, 20, 6), ("The stream", "one owner of the login"), "main"),
            Box((56, 2, 20, 6), ("broker_positions", "every holding, its value")),
            Box((56, 14, 20, 6), ("position_queue", "what has no line")),
            Box((28, 14, 20, 6), ("drain_queue", "a sensor of Dagster, each 5 s"), "main"),
            Box((2, 14, 18, 6), ("position_updates", "the ledger")),
            Box((2, 26, 18, 6), ("Readers", "page, commands, HTTP")),
            Box(
                (28, 26, 48, 6),
                (
                    "Reports, made by the ticks of drain_queue",
                    "exposure, days, checks, causes, results",
                ),
            ),
            Arrow(((20, 4.5), (28, 4.5)), "ticks", (22, 3.7)),
            Arrow(((48, 4.5), (56, 4.5))),
            Arrow(((48, 6.5), (52, 6.5), (52, 12), (68, 12), (68, 14)), "no line", (59, 13.4)),
            Arrow(((31, 8), (31, 11), (14, 11), (14, 14)), "one commit a second", (16, 10.4)),
            Arrow(((56, 18), (48, 18)), "claims", (49.5, 19.8)),
            Arrow(((62, 8), (62, 10), (40, 10), (40, 14)), "values", (42, 11.6)),
            Arrow(((28, 17), (20, 17)), "rows", (22.5, 16.2)),
            Arrow(((8, 20), (8, 26))),
            Arrow(((17, 20), (17, 23), (40, 23), (40, 26))),
            Arrow(((28, 29), (20, 29))),
        ),
    ),
    "queue": (
        "A request is PENDING, PROCESSING under a lease, and ends as SUCCESS or FAILED",
        (78, 24),
        (
            Box((2, 9, 14, 6), ("PENDING", "it waits"), "main"),
            Box((31, 9, 16, 6), ("PROCESSING", "a worker has the lease"), "main"),
            Box((62, 3, 14, 6), ("SUCCESS", "its row is written"), "good"),
            Box((62, 16, 14, 6), ("FAILED", "5 times, or not held"), "bad"),
            Arrow(((16, 12), (31, 12)), "claimed", (21, 11.2)),
            Arrow(((47, 11), (54, 11), (54, 6), (62, 6)), "answered", (47.5, 5.2)),
            Arrow(((47, 13), (54, 13), (54, 19), (62, 19)), "given up", (47.5, 20.8)),
            Arrow(
                ((36, 9), (36, 4), (11, 4), (11, 9)),
                "worker gone, lease over: no attempt is lost",
                (11.5, 3),
            ),
            Arrow(
                ((36, 15), (36, 19), (11, 19), (11, 15)),
                "failed: again after 5 s, 10 s, …",
                (12.5, 18),
            ),
            Arrow(((62, 21), (5, 21), (5, 15)), "a person: position-sync queue retry", (24, 22.8)),
        ),
    ),
    "evidence": (
        "The price of a leg is the first of five sources that can be trusted; else it is unknown",
        (78, 38),
        (
            *(part for number in range(len(PRICES)) for part in step(number)),
            Box((59, 11, 17, 12), PROVENANCE, "good"),
        ),
    ),
    "campaign": (
        "A campaign: a put is sold, rolled, assigned, and its shares are sold; one profit of 480",
        (78, 25),
        (
            Box((2, 4, 15, 7), ("2 November", "sell 1 put 250", "+310"), "main"),
            Box((21, 4, 15, 7), ("9 November", "roll to 16 November", "−180, +260")),
            Box((40, 4, 15, 7), ("16 November", "assigned:", "100 shares at 250")),
            Box((59, 4, 17, 7), ("23 November", "sell 100 at 250.90", "+90")),
            Arrow(((17, 7.5), (21, 7.5))),
            Arrow(((36, 7.5), (40, 7.5))),
            Arrow(((55, 7.5), (59, 7.5))),
            Box(
                (2, 15, 74, 7),
                (
                    "One campaign: 310 − 180 + 260 + 90 = 480",
                    "The premium is not lost when the shares come: they belong to it,"
                    " with the strike as their cost.",
                ),
                "good",
            ),
        ),
    ),
    "unknown": (
        "A sum in which an unknown leg counts as 0 is wrong; it is unknown, with how much is known",
        (78, 25),
        (
            Box((2, 3, 14, 4), ("leg A: +900",)),
            Box((2, 10, 14, 4), ("leg B: −300",)),
            Box((2, 17, 14, 4), ("leg C: unknown",), "bad"),
            Box(
                (27, 2, 24, 8),
                ("unknown as 0: +600", "looks like a gain;", "leg C may have lost 2,000"),
                "bad",
            ),
            Box(
                (27, 14, 24, 8),
                ("unknown as null: –", "“known for 2 of 3”,", "with the reason for leg C"),
                "good",
            ),
            Arrow(((16, 5), (27, 5))),
            Arrow(((16, 12), (21, 12), (21, 8), (27, 8))),
            Arrow(((16, 19), (27, 19))),
            Box(
                (57, 5, 19, 13),
                (
                    "Therefore",
                    "a dash is no zero,",
                    "a star leaves",
                    "something out,",
                    "and you decide on",
                    "what is known",
                ),
                "main",
            ),
            Arrow(((51, 18), (54, 18), (54, 12), (57, 12))),
        ),
    ),
    "session": (
        "A session is STARTING, LIVE or BLIND, and ends as ENDED or LOST",
        (78, 24),
        (
            Box((2, 4, 15, 6), ("STARTING", "has the lease")),
            Box((31, 4, 15, 6), ("LIVE", "sees the broker"), "good"),
            Box((31, 16, 15, 6), ("BLIND", "runs, sees nothing"), "bad"),
            Box((61, 4, 15, 6), ("ENDED", "stopped, or followed")),
            Box((61, 16, 15, 6), ("LOST", "another session has it")),
            Arrow(((17, 7), (31, 7)), "positions are whole", (18, 6.2)),
            Arrow(((10, 10), (10, 19), (31, 19)), "no gateway", (12, 18.2)),
            Arrow(((36, 10), (36, 16)), "connection lost", (25, 13.5)),
            Arrow(((41, 16), (41, 10)), "connected again", (42, 13.5)),
            Arrow(((46, 7), (61, 7)), "stop, rotation", (48, 6.2)),
            Arrow(((46, 19), (61, 19)), "lease expired", (48, 18.2)),
        ),
    ),
    "leg": (
        "A holding is STREAMED with a line, OVERFLOW without, MONITORED if in no active strategy",
        (78, 25),
        (
            Box((2, 3, 16, 6), ("ARMED", "active, not held")),
            Box((30, 3, 18, 6), ("OVERFLOW", "active, held, no line")),
            Box((60, 3, 16, 6), ("STREAMED", "has a line"), "good"),
            Box((30, 16, 18, 6), ("MONITORED", "held, in no strategy")),
            Box((60, 16, 16, 6), ("CLOSED", "position is 0")),
            Arrow(((18, 6), (30, 6)), "bought", (21, 5.2)),
            Arrow(((48, 5), (60, 5)), "gets a line", (50, 4.2)),
            Arrow(((60, 7.5), (48, 7.5)), "loses it", (50.5, 9.4)),
            Arrow(((68, 9), (68, 16))),
            Arrow(((44, 9), (44, 13), (64, 13), (64, 16)), "sold, expired, assigned", (46, 12.2)),
            Arrow(((48, 19), (60, 19))),
        ),
    ),
    "trust": (
        "A line waits, is trusted with its first price, interrupted by an outage, or suspect",
        (78, 26),
        (
            Box((2, 4, 15, 6), ("WAITING", "requested")),
            Box((30, 4, 15, 6), ("TRUSTED", "its prices count"), "good"),
            Box((60, 4, 16, 6), ("INTERRUPTED", "IB or a farm is lost")),
            Box((30, 17, 15, 6), ("SUSPECT", "requested again"), "bad"),
            Arrow(((17, 7), (30, 7)), "first price", (19.5, 6.2)),
            Arrow(((45, 6), (60, 6)), "outage", (49, 5.2)),
            Arrow(((60, 8.5), (45, 8.5)), "a price", (49.5, 10.3)),
            Arrow(((10, 10), (10, 20), (30, 20)), "30 s silent", (12, 19.2)),
            Arrow(((35, 10), (35, 17)), "silent, or contradicted", (19, 13.8)),
            Arrow(((40, 17), (40, 10)), "a price", (41, 14)),
            Arrow(((68, 10), (68, 20), (45, 20)), "30 s silent", (55, 19.2)),
        ),
    ),
}


def main() -> None:
    """Write each diagram."""
    FOLDER.mkdir(exist_ok=True)
    for name, (title, size, parts) in DIAGRAMS.items():
        text = svg(title, size, parts)
        ElementTree.fromstring(text)  # noqa: S314 - our own text
        (FOLDER / f"{name}.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
