"""What a rehearsal showed, line by line: the page for the person, and the file that may be sent."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from enum import StrEnum
from importlib import metadata

from position_sync_dagster.processes.heard.wire import Said, SaidKind, Vocabulary
from position_sync_dagster.processes.rehearsal.measured import Measured


class Verdict(StrEnum):
    """Whether something is as expected, was never heard before, or is otherwise than assumed."""

    NEW = "new"
    DIFFERENT = "different"
    GOOD = "good"
    UNHEARD = "not heard"


# What a person shall look at.
ODD = (Verdict.NEW, Verdict.DIFFERENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One line of the page and of the file, without account data.

    Attributes:
        about: What was compared.
        count: How often it was heard.
        p50, p95: Seconds, or differences as parts of one; None: nothing was measured.
    """

    about: str
    text: str
    verdict: Verdict
    count: int
    p50: float | None = None
    p95: float | None = None

    def __str__(self) -> str:
        """Return it as a line of the page."""
        measured = f"{self.count}"
        if self.p50 is not None:
            measured += f", p50 {self.p50:.3g}, p95 {self.p95:.3g}"
        return f"- {self.verdict}: {self.about}: {self.text} ({measured})"


LEAST_PERIODS = 20


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Return p50 and p95, by these names; of no values nothing."""
    ordered = sorted(values)
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {"p50": ordered[last // 2], "p95": ordered[int(0.95 * last)]}


def measured(
    about: str, text: str, values: Collection[float], within: tuple[float, float]
) -> Compared:
    """Return the line of some values, which is good where p95 is within bounds.

    Of periods, which have a least, the middle counts, and only of many: the first may be any.
    """
    least, most = within
    if len(values) < (LEAST_PERIODS if least else 1):
        return Compared(about=about, text=text, verdict=Verdict.UNHEARD, count=len(values))
    parts = percentiles(values)
    judged = parts["p50" if least else "p95"]
    verdict = Verdict.GOOD if least <= judged <= most else Verdict.DIFFERENT
    return Compared(about=about, text=text, verdict=verdict, count=len(values), **parts)


def counted(about: str, text: str, count: int, *, wrong: int) -> Compared:
    """Return the line of a count, of which some are wrong."""
    verdict = (Verdict.DIFFERENT if wrong else Verdict.GOOD) if count else Verdict.UNHEARD
    return Compared(about=about, text=text, verdict=verdict, count=count)


def said_lines(
    said: Iterable[tuple[Said, int]], heard: Measured, known: Vocabulary
) -> list[Compared]:
    """Return what a gateway said, the new first; of an order with the seconds in between."""
    lines = []
    for words, count in said:
        kind, name = words
        delays = percentiles(heard.delays.get(name, ()))
        verdict = Verdict.GOOD if known.knows(words) else Verdict.NEW
        lines.append(Compared(about=kind, text=name, verdict=verdict, count=count, **delays))
    return sorted(lines, key=lambda line: (line.verdict is Verdict.GOOD, line.about, line.text))


# A gateway takes so many messages in a second.
MOST_SENT = 50


def assumptions(heard: Measured, known: Vocabulary, most_lines: int) -> Iterator[Compared]:
    """Yield what the design assumes, as it was measured."""
    for order, within in known.assumed.items():
        least, most = within
        text = f"{least:g} to {most:g} s are assumed"
        yield measured(order, text, heard.delays.get(order, ()), within)
    for request, answer in known.answers.items():
        missing = heard.missing[request]
        text = f"{missing} without {answer}"
        yield counted(request, text, heard.requested[request], wrong=missing)

    lines = heard.most_lines
    text = f"of {most_lines} that were allowed"
    yield counted("lines at once", text, lines, wrong=lines > most_lines)
    sent = heard.most_sent
    yield counted("messages sent in a second", "at most", sent, wrong=sent > MOST_SENT)


FORMAT = "ibheard"
VERSION = 1
DISTRIBUTION = "position-sync-dagster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a rehearsal showed, without account data.

    Attributes:
        lines: The greatest number of market data lines that was allowed.
        said: What the gateway said, by kind, the new first.
        assumed: What the design assumes, as it was measured.
        values: Our values beside the broker's own, as parts of one.
    """

    day: date
    server_version: int | None
    minutes: float
    lines: int
    said: Sequence[Compared]
    assumed: Sequence[Compared]
    values: Sequence[Compared]

    def as_json(self) -> str:
        """Return the file: each thing that was compared is a line of it."""
        head = {"format": FORMAT, "version": VERSION, "program": metadata.version(DISTRIBUTION)}
        body = asdict(self)
        body |= {"day": self.day.isoformat(), "minutes": round(self.minutes, 2)}
        lists = {name: body.pop(name) for name in ("said", "assumed", "values")}

        text = json.dumps(head | body)[:-1]
        for name, compared in lists.items():
            lines = ",\n".join(map(json.dumps, compared))
            text += f',\n"{name}": [\n{lines}\n]'
        return text + "}\n"

    def page(self) -> str:
        """Return the page, in Markdown."""
        return "\n\n".join(self._paragraphs())

    def _paragraphs(self) -> Iterator[str]:
        """Yield the headings of the page, each with what stands below it."""
        yield f"# What your gateway showed on {self.day}"
        yield (
            f"Heard for {self.minutes:.1f} minutes, server version {self.server_version}, on "
            f"at most {self.lines} lines."
        )
        odd = sum(line.verdict in ODD for line in (*self.said, *self.assumed, *self.values))
        yield f"{odd} lines are new or different."

        yield "## What it said"
        yield "\n".join(self._kinds())
        yield "## What is assumed of it"
        yield "\n".join(map(str, self.assumed))
        yield "## Our values beside the broker's"
        yield "\n".join(map(str, self.values))

    def _kinds(self) -> Iterator[str]:
        """Yield how much of what was said is known, and what is new."""
        messages = 0
        news = []
        for line in self.said:
            if line.about == SaidKind.MESSAGE:
                messages += line.count
            if line.verdict is Verdict.NEW:
                news.append(str(line))

        known = len(self.said) - len(news)
        yield f"- good: {known} kinds are known ({messages} messages)"
        yield from news
