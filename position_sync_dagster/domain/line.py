"""One market data line: its states, and what each event makes of it; pure.

A line is trusted while its newest values are the present ones. One that should tick and does not is
suspect; so is one whose value the broker's newer one contradicts, which is its dispute. A suspect
line is renewed, that is requested again, until a price comes that counts: what came before an
interruption or a suspicion does not count any more (`since`). After a request or an interruption
the rows of its holdings wait a moment for a tick (`withheld_until_s`). A denial is a refusal of
live data, which the line of the contract remembers; for some time it counts.

A line is a frozen record; an event that says nothing in its state leaves it as it is. Times are
seconds of a monotonic clock that the caller reads, unless they are called a moment. `_awaiting`
starts the time that a line has to tick, `_suspect` makes what has come until now count no more, and
`_in` counts each change of the state (`changes`).
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.retry import Backoff

# A line that should tick and does not for so many seconds is requested again.
LINE_SILENCE_S = 30.0


# Time between two requests of a suspect line; it starts anew once the line ticks again and agrees
# with the broker's value.
RENEWAL = Backoff(first_s=30.0, longest_s=900.0)

# A denial that ended this long ago is over: the next refusal begins a new count.
DENIAL_REMEMBERED_S = 900.0

DIFFERS = "the broker's newer value differs from that of the line"
NOT_TICKED = "the line has not ticked since its data should flow"

# A line that was requested, or that may have been interrupted, has this long to tick before a row
# says that it does not. Farms often break and return within seconds (recorded: IBC issues/143).
FIRST_TICK_GRACE_S = 5.0


class LineState(StrEnum):
    """How far the values of a line count.

    IDLE: not requested. WAITING: requested, and not ticked yet. TRUSTED: its newest values are the
    present ones, however old they are, since a gateway ticks on change. INTERRUPTED: its farm broke
    or connectivity was lost after its last tick. SUSPECT: it seems dead and is requested again.
    REFUSED: the gateway ended it.
    """

    IDLE = "IDLE"
    WAITING = "WAITING"
    TRUSTED = "TRUSTED"
    INTERRUPTED = "INTERRUPTED"
    SUSPECT = "SUSPECT"
    REFUSED = "REFUSED"


# What a leg is whose line was refused, in texts for people.
QUEUED_TEXT = "now by the queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A refusal of live data for one contract.

    Attributes:
        wait: The delays before live data are requested again.
        may_be_delayed: Whether delayed data may be requested meanwhile.
        code: The broker's code; None: the gateway did not refuse it.
        times: Number of refusals in a row.
        since_s: When the first of these came.
        until_s: When live data may be requested again.
    """

    reason: str
    wait: Backoff
    may_be_delayed: bool = False
    code: int | None = None
    times: int = 0
    since_s: float = -math.inf
    until_s: float = -math.inf

    @property
    def cause(self) -> tuple[int | str, bool]:
        """What it has in common with those of other contracts that one text names together."""
        return self.code or self.reason, self.may_be_delayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """A newer value of the broker differed from that of a line, and none has agreed since.

    Attributes:
        holding: Whose value it was.
        answered: The line was requested again since, and has sent a price since.
    """

    holding: Key
    answered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The line of one contract, which all holdings of the contract share.

    Single lines may stay dead for hours after a farm notice of OK or after 1102 (nautilus_trader
    pull/3968, IBC issues/143).

    Attributes:
        held_since_s: When it was requested; None while it is not held.
        delayed: Whether it was requested as delayed data.
        denial: The last refusal of live data; it may be over.
        reason: Why the line is not trusted; None while it is, or waits for its first tick.
        withheld_until_s: Until then no row says that the line is not trusted.
        overdue_at_s: When it becomes suspect unless it ticks.
        renew_at_s: It is requested again at this time at the earliest.
        renewals: Number of times in a row that it was requested again without success.
        was_renewed: It was requested again after its newest price.
        dispute: The broker's value that differs, if one does.
        changes: How often its state was set.
        since: What arrived until this moment does not count any more.
        priced_at: When its newest price arrived that counted.
        heard_at: When its newest tick of any kind arrived.

    >>> line = Line().requested(0.0)
    >>> line = line.elapsed(31.0)
    >>> line.state, line.is_due_for_renewal(31.0)
    (<LineState.SUSPECT: 'SUSPECT'>, True)
    >>> line.renewed(31.0).priced().trusted
    True
    """

    state: LineState = LineState.IDLE
    held_since_s: float | None = None
    delayed: bool = False
    denial: Denial | None = None
    reason: str | None = None
    withheld_until_s: float = -math.inf
    overdue_at_s: float = math.inf
    renew_at_s: float = -math.inf
    renewals: int = 0
    was_renewed: bool = False
    dispute: Dispute | None = None
    changes: int = 0
    since: datetime = NEVER
    priced_at: datetime = NEVER
    heard_at: datetime = NEVER

    @property
    def held(self) -> bool:
        """Whether the line is held: requested, and neither cancelled nor refused."""
        return self.held_since_s is not None

    @property
    def trusted(self) -> bool:
        """Whether its newest values count."""
        return self.state is LineState.TRUSTED

    @property
    def suspect(self) -> bool:
        """Whether it seems dead and is requested again."""
        return self.state is LineState.SUSPECT

    @property
    def refused(self) -> bool:
        """Whether the gateway ended it and it was not requested since."""
        return self.state is LineState.REFUSED

    @property
    def is_awaited(self) -> bool:
        """Whether it becomes suspect unless it ticks."""
        return self.overdue_at_s < math.inf and not self.suspect

    # The request.

    def requested(self, now_s: float, *, delayed: bool = False) -> "Line":
        """Return the line after a request, the first one or that for another kind of data."""
        return self._awaiting(
            LineState.WAITING, now_s, reason=None, held_since_s=now_s, delayed=delayed
        )

    def reopened(self, now_s: float) -> "Line":
        """Return the line after its connection opened again: what was found before is over.

        It may be renewed as soon as it is suspect (`renew_at_s`).
        """
        if not self.held:
            return self
        return self._awaiting(
            LineState.WAITING, now_s, reason=None, renew_at_s=-math.inf, dispute=None, renewals=0
        )

    def renewed(self, now_s: float) -> "Line":
        """Return a suspect line that is requested again with a new id; the next time is later."""
        renewals = self.renewals + 1
        return replace(
            self, renewals=renewals, was_renewed=True, renew_at_s=now_s + RENEWAL.delay_s(renewals)
        )

    def cancelled(self) -> "Line":
        """Return the line after we cancelled it: a new one, but for its denial."""
        return Line(denial=self.denial, changes=self.changes + 1)

    def ended(self, now_s: float, reason: str) -> "Line":
        """Return the line after the gateway refused or ended it: nothing that it said counts."""
        return self._in(
            LineState.REFUSED,
            held_since_s=None,
            delayed=False,
            reason=reason,
            withheld_until_s=now_s + FIRST_TICK_GRACE_S,
            overdue_at_s=math.inf,
        )

    def _in(self, state: LineState, **changes: Any) -> "Line":
        """Return it in a state; by `changes` its holdings see that their rows may differ now."""
        return replace(self, state=state, changes=self.changes + 1, **changes)

    def _awaiting(self, state: LineState, now_s: float, **changes: Any) -> "Line":
        """Return it as one that should tick: for a moment no row says that it is not trusted.

        After `LINE_SILENCE_S` without a tick it is suspect.
        """
        return self._in(
            state,
            withheld_until_s=now_s + FIRST_TICK_GRACE_S,
            overdue_at_s=now_s + LINE_SILENCE_S,
            **changes,
        )

    # Its farm, and its silence.

    def interrupted(self, now_s: float, at: datetime, reason: str) -> "Line":
        """Return the line after its farm broke, or connectivity was lost.

        It has its time to tick again.

        Args:
            now_s: The time.
            at: The moment; what came before it does not count any more.
            reason: The cause, for people.
        """
        if not self.held:
            return self
        since = max(self.since, at)
        return self._awaiting(LineState.INTERRUPTED, now_s, reason=reason, since=since)

    def restored(self, now_s: float) -> "Line":
        """Return the line after a notice that its data should flow again (2104, 1102).

        A tick is awaited, not later than before: a farm may return again and again. Only a line
        whose time to tick has passed while it was interrupted has the whole time again.
        """
        if not self.held:
            return self
        overdue_at_s = now_s + LINE_SILENCE_S
        is_over = self.state is LineState.INTERRUPTED and self.overdue_at_s <= now_s
        if not is_over:
            overdue_at_s = min(self.overdue_at_s, overdue_at_s)
        return replace(self, overdue_at_s=overdue_at_s)

    def doubted(self, now_s: float, reason: str) -> "Line":
        """Return a trusted line that may be dead, or only quiet: a new request shows which.

        It has a moment to answer.
        """
        if not self.trusted:
            return self
        return self._suspect(reason, withheld_until_s=now_s + FIRST_TICK_GRACE_S)

    def compared(self, holding: Key, *, agrees: bool) -> "Line":
        """Return the line after a newer value of the broker differed from its own, or did not.

        If they differ, a trusted line is SUSPECT, and any other stays as it is. If they agree, its
        dispute and its count of renewals end; only the holding that began a dispute ends it. It is
        trusted again at its next price (`priced`).

        Args:
            holding: Whose value it is: holdings of several accounts share a line.
            agrees: Whether the two are about the same.
        """
        if not agrees:
            if not self.trusted:
                return self
            return self._suspect(DIFFERS, dispute=Dispute(holding=holding))

        dispute = self.dispute
        if dispute is not None and holding != dispute.holding:
            return self
        # A line that is neither held nor refused has no dispute and no renewals.
        return replace(self, dispute=None, renewals=0) if self.held or self.refused else self

    def _suspect(self, reason: str, **changes: Any) -> "Line":
        """Return it as SUSPECT: nothing that has come until now counts any more."""
        return self._in(
            LineState.SUSPECT,
            reason=reason,
            overdue_at_s=math.inf,
            since=max(self.since, self.heard_at),
            **changes,
        )

    # Its ticks, and the time.

    def heard(self, quote: Quote) -> "Line":
        """Return the line after ticks; its `priced_at` is another one if a price came that counts.

        Args:
            quote: The newest market data of the line.
        """
        newest = max(quote.quote_time or NEVER, quote.mark_time or NEVER)
        heard_at = quote.received_at or NEVER
        if not self.held or newest <= self.since or newest == self.priced_at:
            # Another part ticked, as the model, or the price is from before `since`.
            return replace(self, heard_at=heard_at)
        return self.priced(priced_at=newest, heard_at=heard_at)

    def priced(self, **arrived: datetime) -> "Line":
        """Return the line after a price that counts: of the quote, or a mark.

        Values of the model come from another part of the gateway, and show nothing of the prices.

        Args:
            arrived: Times of the price, by the names of the fields.
        """
        if not self.held:
            return self
        dispute = self.dispute
        # Its first price since it was requested again is its answer to the broker's value.
        if dispute is not None and self.was_renewed:
            dispute = replace(dispute, answered=True)
        line = self if self.trusted else self._in(LineState.TRUSTED)
        return replace(
            line,
            reason=None,
            overdue_at_s=math.inf,
            was_renewed=False,
            dispute=dispute,
            # While a dispute lasts each renewal comes later than the one before.
            renewals=0 if dispute is None else self.renewals,
            **arrived,  # type: ignore[arg-type] # mypy takes them for each of the fields
        )

    def counted(self, quote: Quote | None) -> Quote | None:
        """Return the part of its newest market data that counts; None if it is not held."""
        if quote is None or not self.held:
            return None
        return quote.counted(since=self.since)

    def elapsed(self, now_s: float, *, session_open: bool = True) -> "Line":
        """Return the line after time has passed.

        Outside the session a silent line says nothing: its trust stays as it is, and it has the
        whole time to tick once the session opens.
        """
        if not self.is_awaited:
            return self
        if not session_open:
            return replace(self, overdue_at_s=now_s + LINE_SILENCE_S)
        if now_s < self.overdue_at_s:
            return self
        if self.trusted:  # awaited since a notice that data flow again: it may only be quiet
            return self.doubted(now_s, NOT_TICKED)
        return self._suspect(self.reason or NOT_TICKED)

    def may_be_disputed(self, now_s: float) -> bool:
        """Return whether a difference to the broker's value makes it suspect.

        A line that was requested again lately is left alone: its value is a fresh one.
        """
        return self.trusted and now_s >= self.renew_at_s

    def is_due_for_renewal(self, now_s: float, *, session_open: bool = True) -> bool:
        """Return whether the line is to be cancelled and requested with a new id now.

        Outside the session silence shows no fault: then it holds only for a line that the broker's
        value contradicts.
        """
        is_due = self.suspect and now_s >= self.renew_at_s
        return is_due and (session_open or self.dispute is not None)

    def denial_counted_on(self, denial: Denial, now_s: float) -> Denial:
        """Return a new refusal of live data with its number in a row, and the end of its wait.

        The wait grows with each. A refusal `DENIAL_REMEMBERED_S` after the wait of the one before
        has ended is a first one: live data were granted meanwhile.
        """
        times = 0
        since_s = now_s
        before = self.denial
        if before is not None and now_s - before.until_s < DENIAL_REMEMBERED_S:
            times = before.times
            since_s = before.since_s
        # While a denial counts only delayed data are requested: their refusal is none of live data.
        if self.denied(now_s) is None:
            times += 1

        until_s = now_s + denial.wait.delay_s(times)
        return replace(denial, times=times, since_s=since_s, until_s=until_s)

    def denied(self, now_s: float) -> Denial | None:
        """Return the refusal of live data that still counts, if any."""
        denial = self.denial
        if denial is not None and now_s < denial.until_s:
            return denial

        return None
