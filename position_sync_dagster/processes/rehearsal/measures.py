"""What was measured of a gateway, beside what the design assumes of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from position_sync_dagster.gateway.codes import GatewayCode
from position_sync_dagster.gateway.wire import Said, Vocabulary
from position_sync_dagster.processes.rehearsal.watch import Watch


class Verdict(StrEnum):
    """Whether something is as expected, was never heard before, or is otherwise than assumed."""

    GOOD = "good"
    NEW = "new"
    DIFFERENT = "different"
    UNHEARD = "not heard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the page and of the file.

    Attributes:
        about: What was compared, by a name that stays the same.
        text: What was heard, for people, without account data.
        count: How often.
        numbers: What was measured: seconds, counts and ratios.
    """

    about: str
    verdict: Verdict
    text: str
    count: int
    numbers: dict[str, float | None] = field(default_factory=dict)


def wire_lines(said: Iterable[tuple[Said, int]], vocabulary: Vocabulary) -> list[Line]:
    """Return what a gateway said, the new first."""
    lines = [
        Line(
            about=each.kind,
            verdict=Verdict.GOOD if vocabulary.knows(each) else Verdict.NEW,
            text=each.name,
            count=count,
        )
        for each, count in said
    ]
    return sorted(lines, key=lambda line: (line.verdict is Verdict.GOOD, line.about, line.text))


def judged(about: str, values: Sequence[float], least: float, most: float, unit: str = "s") -> Line:
    """Return the line of a measure, which is good where its median is within bounds."""
    if not values:
        return Line(about=about, verdict=Verdict.UNHEARD, text="not heard often enough", count=0)
    middle = median(values)
    late = sorted(values)[int(0.95 * (len(values) - 1))]
    return Line(
        about=about,
        verdict=Verdict.GOOD if least <= middle <= most else Verdict.DIFFERENT,
        text=f"{middle:.3g} {unit}, p95 {late:.3g}; assumed {least:g} to {most:g}",
        count=len(values),
        numbers={"p50": round(middle, 4), "p95": round(late, 4)},
    )


def counted(about: str, count: int, text: str, *, fine: bool) -> Line:
    """Return the line of a count; none at all is not heard."""
    verdict = Verdict.UNHEARD
    if count:
        verdict = Verdict.GOOD if fine else Verdict.DIFFERENT
    return Line(about=about, verdict=verdict, text=text, count=count)


# Account rows and values come each three minutes, PnLSingle about each second, and the first
# option computation within ten (docs/understand.md, "What comes when"). Unit: seconds.
EACH_THREE_MINUTES = (150.0, 210.0)
EACH_SECOND = (0.5, 2.0)
MODEL_WITHIN_S = 10.0

# A line without a tick for so long is silent. Unit: seconds.
SILENT_S = 10.0

# A gateway takes so many messages in a second.
MOST_SENT = 50

_LISTS = {
    "6": "end of account downloads",
    "61": "end of lists of positions",
    "9": "end of contract details",
    "7": "end of executions",
}


def assumptions(watch: Watch, most_lines: int) -> Iterator[Line]:
    """Yield each assumption of the design, with what was measured."""
    for about in ("portfolio rows", "account values"):
        yield judged(f"period of {about}", watch.rows[about], *EACH_THREE_MINUTES)
    for about in ("PnLSingle", "PnL"):
        paces = [pace.period_s for key, pace in watch.paces.items() if key[0] == about]
        periods = [period for period in paces if period is not None]
        yield judged(f"period of {about}", periods, *EACH_SECOND)

    asked = len(watch.singles)
    answered = sum(key[0] == "PnLSingle" for key in watch.paces)
    text = f"{answered} of {asked} subscriptions were answered"
    yield counted("answers to PnLSingle", asked, text, fine=answered == asked)
    resets = ", ".join(f"{at:%H:%M} UTC" for at in watch.resets) or "none was seen"
    yield counted("reset of the daily profit", len(watch.resets), resets, fine=True)

    for request, about in _LISTS.items():
        missing = watch.missing[request]
        text = f"{watch.ended[request]} of {watch.requested[request]} came, {missing} are missing"
        if request == "6" and watch.blank_ends:
            text += f"; {watch.blank_ends} name no account"
        yield counted(about, watch.requested[request], text, fine=not missing)

    yield from _of_times(watch)
    yield from _of_lines(watch, most_lines)
    yield from _of_codes(watch)

    sent = f"{watch.most_sent} messages in a second at most"
    fine = watch.most_sent <= MOST_SENT and not watch.codes[100]
    yield counted("pacing", watch.most_sent, sent, fine=fine)
    outages = [f"{at:%H:%M} UTC for {seconds:.0f} s" for at, seconds in watch.outages]
    text = ", ".join(outages) or "the connection stayed"
    yield counted("restart of the gateway", len(outages), text, fine=True)


def _of_times(watch: Watch) -> Iterator[Line]:
    forms = dict(watch.clocks)
    text = ", ".join(f"{form} ({count} times)" for form, count in forms.items()) or "none came"
    yield counted("form of account times", len(forms), text, fine=set(forms) == {"99:99"})
    offset, count = max(watch.offsets.items(), key=lambda item: item[1], default=(0, 0))
    text = f"{offset / 60:+g} h from UTC, {count} of {watch.offsets.total()} times"
    line = counted("zone of account times", count, text, fine=True)
    line.numbers["hours"] = offset / 60
    yield line


def _of_lines(watch: Watch, most_lines: int) -> Iterator[Line]:
    lines = list(watch.lines.values())
    text = f"{watch.peak_lines} at once, of {most_lines} that were allowed"
    yield counted("lines", watch.peak_lines, text, fine=watch.peak_lines <= most_lines)

    delays = [line.model_at - line.requested_at for line in lines if line.model_at is not None]
    yield judged("delay of model ticks", delays, 0.0, MODEL_WITHIN_S)
    options = [line for line in lines if line.sec_type in ("OPT", "FOP") and line.ended_by is None]
    had_time = [line for line in options if watch.monotonic() - line.requested_at > SILENT_S]
    without = sum(line.model_at is None for line in had_time)
    text = f"{without} of {len(had_time)} options had none"
    yield counted("options without model ticks", len(had_time), text, fine=not without)

    waited = [
        line
        for line in lines
        if line.ended_by is None and watch.monotonic() - line.requested_at > SILENT_S
    ]
    silent = sum(
        line.ticked_at is None or line.ticked_at - line.requested_at > SILENT_S for line in waited
    )
    text = f"{silent} of {len(waited)} did not tick within {SILENT_S:g} s"
    yield counted("silent lines", len(waited), text, fine=not silent)


# What may follow a notice of a farm or of IB, without a surprise: the same, or its end.
_RECOVERS = {
    2103: {2103, 2104, 2108, 2119}, 2105: {2105, 2106, 2107}, 2157: {2157, 2158, 2159},
    2119: {2104, 2103, 2119}, 1100: {1100, 1101, 1102}, 2110: {1100, 1101, 1102, 2110},
}  # fmt: skip


def _of_codes(watch: Watch) -> Iterator[Line]:
    for (code, then), delays in sorted(watch.followed.items()):
        if code not in _RECOVERS:
            continue
        text = f"{then} after {median(delays):.3g} s"
        line = counted(f"after {code}", len(delays), text, fine=then in _RECOVERS[code])
        line.numbers["p50"] = round(median(delays), 2)
        yield line

    for code in (GatewayCode.COMPETING_SESSION, GatewayCode.CUT_BY_FARM):
        ended = [line for line in watch.lines.values() if line.ended_by == code]
        ticking = sum(line.ticks_after_end > 0 for line in ended)
        text = f"{watch.codes[code]} times; {ticking} of {len(ended)} lines went on ticking"
        yield counted(f"code {code:d}", watch.codes[code], text, fine=not ticking)
