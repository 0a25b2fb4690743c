"""When a drain run is requested, and for what."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.sync.drain_plan import (
    DRAIN_AND_DERIVE,
    DrainCursor,
    DrainPlan,
    LoginState,
    Step,
    Workload,
    plan_drain,
)

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)
SETTLED = DrainCursor(registry_version=1, unowned_since={"": NOW - timedelta(minutes=1)})

LOGIN = ("session", "unavailable", "stream_in_progress")


def session(
    *,
    state: SessionState = SessionState.LIVE,
    owner: Owner = Owner.STREAM,
    age_s: float = 60.0,
    left_s: float = 10.0,
) -> GatewaySession:
    return GatewaySession(
        gateway_id="127.0.0.1:4002",
        owner=owner,
        session_id="s1",
        run_id="r1",
        host="here",
        pid=1,
        fencing_token=1,
        started_at=NOW - timedelta(seconds=age_s),
        heartbeat_at=NOW - timedelta(seconds=1),
        expires_at=NOW + timedelta(seconds=left_s),
        state=state,
        state_since=NOW - timedelta(seconds=age_s),
    )


def dead(age_s: float) -> GatewaySession:
    return session(age_s=age_s, left_s=-1.0)


def workload(**values: object) -> Workload:
    """Return a workload of one login; what is of the login is named like the rest."""
    of_login = {name: values.pop(name) for name in LOGIN if name in values}
    plain = Workload(
        now=NOW,
        pending=0,
        claimable=0,
        registry_version=1,
        recorded_version=1,
        logins=(replace(LoginState(session=session()), **of_login),),  # type: ignore[arg-type]
    )
    return replace(plain, **values)  # type: ignore[arg-type]


def plan(found: Workload, cursor: DrainCursor = SETTLED) -> DrainPlan:
    return plan_drain(found, cursor, refresh_interval_s=180.0)


def test_without_work_there_is_no_run_and_the_reason_has_the_numbers() -> None:
    decided = plan(workload(pending=3, oldest_pending_at=NOW - timedelta(seconds=7)))
    assert decided.steps == ()
    assert "pending 3, claimable 0, oldest 7.0 s" in decided.reason


def test_waiting_requests_are_drained_while_a_stream_is_alive() -> None:
    assert plan(workload(pending=2, claimable=2)).steps == DRAIN_AND_DERIVE


def test_a_drain_in_progress_is_waited_for() -> None:
    decided = plan(workload(pending=2, claimable=2, drain_in_progress="0123456789"))
    assert decided.steps == ()
    assert "01234567 is in progress" in decided.reason


def test_an_owner_without_connection_makes_requests_wait_with_the_reason() -> None:
    decided = plan(
        workload(
            claimable=5,
            session=session(state=SessionState.BLIND, age_s=300),
            unavailable="the owner is BLIND",
        )
    )
    assert decided.steps == ()
    assert "the owner is BLIND" in decided.reason


def test_stale_values_make_requests_wait_until_the_next_refresh() -> None:
    decided = plan(
        workload(claimable=5, session=dead(age_s=100), unavailable="downloaded long ago")
    )
    assert decided.steps == ()
    assert "downloaded long ago" in decided.reason


def test_fresh_values_of_an_ended_owner_are_used_before_the_next_refresh() -> None:
    assert plan(workload(claimable=5, session=dead(age_s=100))).steps == DRAIN_AND_DERIVE


@pytest.mark.parametrize(("age_s", "due"), [(179.0, False), (181.0, True)])
def test_without_an_owner_one_refresh_per_interval_is_requested(age_s: float, due: bool) -> None:
    decided = plan(workload(session=dead(age_s)))
    assert decided.steps == ((Step.REFRESH, *DRAIN_AND_DERIVE) if due else ())


def test_a_gateway_without_any_download_is_refreshed() -> None:
    assert plan(workload(session=None)).steps == (Step.REFRESH, *DRAIN_AND_DERIVE)


def test_a_stream_that_is_alive_refreshes_by_itself() -> None:
    assert plan(workload(session=session(age_s=10_000))).steps == ()


@pytest.mark.parametrize(("owner", "name"), [(Owner.STREAM, "stream"), (Owner.REFRESH, "refresh")])
def test_the_reason_names_the_owner_of_the_login(owner: Owner, name: str) -> None:
    assert plan(workload(session=session(owner=owner))).reason.startswith(f"the {name} is live")


def test_a_stream_that_is_starting_keeps_a_refresh_from_taking_the_login() -> None:
    decided = plan(workload(session=None, stream_in_progress=True))
    assert decided.steps == ()
    assert decided.cursor.unowned_since == {}


def test_a_login_that_just_became_free_is_left_to_the_stream_for_a_moment() -> None:
    first = plan(workload(session=None), DrainCursor(registry_version=1))
    assert first.steps == ()
    assert first.cursor.unowned_since == {"": NOW}
    later = workload(session=None, now=NOW + timedelta(seconds=11))
    assert plan(later, first.cursor).steps == (Step.REFRESH, *DRAIN_AND_DERIVE)


def test_a_registry_that_changed_is_recorded_once() -> None:
    decided = plan(workload(registry_version=2))
    assert decided.steps == (Step.STRATEGIES,)
    assert plan(workload(registry_version=2), decided.cursor).steps == ()


def test_a_registry_that_was_not_looked_at_is_as_it_was() -> None:
    decided = plan(workload(registry_version=None))
    assert (decided.steps, decided.cursor.registry_version) == ((), SETTLED.registry_version)


def test_a_registry_version_that_dagster_has_recorded_needs_no_run() -> None:
    decided = plan(workload(registry_version=7, recorded_version=7))
    assert decided.steps == ()
    # Later the run that recorded it is not among the newest runs any more.
    later = plan(workload(registry_version=7, recorded_version=None), decided.cursor)
    assert later.steps == ()
    assert plan(workload(registry_version=8, recorded_version=None), later.cursor).steps == (
        Step.STRATEGIES,
    )


def test_a_saved_strategies_file_is_applied_once_even_when_it_is_malformed() -> None:
    decided = plan(workload(strategies_mark="9:100"))
    assert decided.steps == (Step.STRATEGIES,)
    assert plan(workload(strategies_mark="9:100"), decided.cursor).steps == ()


def test_what_a_run_did_not_apply_is_tried_again_when_no_value_waits_for_the_run() -> None:
    """Else the registry would lack a saved file until it is saved again."""
    assert plan(workload(unapplied=True)).steps == (Step.STRATEGIES,)
    assert plan(workload(unapplied=True, claimable=1)).steps == DRAIN_AND_DERIVE
    failed = workload(unapplied=True, unsuccessful_runs=1, last_unsuccessful_at=NOW)
    assert plan(failed).steps == ()


def test_one_run_does_all_the_work_there_is() -> None:
    decided = plan(workload(registry_version=2, session=None, claimable=1))
    assert decided.steps == (Step.STRATEGIES, Step.REFRESH, *DRAIN_AND_DERIVE)


@pytest.mark.parametrize(("unsuccessful_runs", "pause_s"), [(1, 10), (2, 20), (3, 40), (9, 120)])
def test_failing_drains_are_requested_less_and_less_often(
    unsuccessful_runs: int, pause_s: int
) -> None:
    early, late = (
        workload(
            claimable=1,
            unsuccessful_runs=unsuccessful_runs,
            last_unsuccessful_at=NOW - timedelta(seconds=pause_s + d),
        )
        for d in (-1, 1)
    )
    assert plan(early).steps == ()
    assert plan(late).steps == DRAIN_AND_DERIVE


def test_requests_that_could_not_be_valued_do_not_hold_up_new_ones() -> None:
    released = workload(claimable=4, unsuccessful_runs=3, last_unsuccessful_at=NOW, released=4)
    assert plan(released).steps == ()
    assert plan(replace(released, claimable=5)).steps == DRAIN_AND_DERIVE


def test_a_clock_that_was_set_back_holds_up_neither_refresh_nor_drain() -> None:
    hour = timedelta(hours=1)
    started = replace(dead(age_s=100), started_at=NOW + hour)
    settling = plan(workload(session=started), replace(SETTLED, unowned_since={"": NOW + hour}))
    assert settling.cursor.unowned_since == {"": NOW}
    assert plan(workload(session=started)).steps == (Step.REFRESH, *DRAIN_AND_DERIVE)
    unsuccessful = workload(
        claimable=1, unsuccessful_runs=1, last_unsuccessful_at=NOW + hour, released=1
    )
    assert plan(unsuccessful).steps == DRAIN_AND_DERIVE


def test_a_cursor_survives_being_written_and_read() -> None:
    cursor = DrainCursor(registry_version=4, strategies_mark="1:2", unowned_since={"a:1": NOW})
    assert DrainCursor.from_text(cursor.to_text()) == cursor


@pytest.mark.parametrize("text", [None, "", "not json", "[]", '"x"', '{"unowned_since": "soon"}'])
def test_a_cursor_that_cannot_be_read_is_an_empty_one(text: str | None) -> None:
    assert DrainCursor.from_text(text) == DrainCursor()


def of_two(east: LoginState, west: LoginState, **values: object) -> DrainPlan:
    since = NOW - timedelta(minutes=1)
    cursor = replace(SETTLED, unowned_since={"east": since, "west": since})
    return plan(workload(logins=(east, west), **values), cursor)


EAST = LoginState(name="east", session=session())
NEVER = LoginState(name="west", unavailable="never downloaded")


def test_of_several_logins_a_refresh_is_a_run_of_its_own() -> None:
    decided = of_two(EAST, NEVER, claimable=1)
    assert (decided.steps, decided.refreshes) == (DRAIN_AND_DERIVE, ("west",))
    assert of_two(EAST, NEVER, refresh_in_progress=True).refreshes == ()
    busy = of_two(EAST, NEVER, claimable=1, drain_in_progress="0123456789")
    assert (busy.steps, busy.refreshes) == ((), ("west",))
    assert of_two(EAST, replace(NEVER, stream_in_progress=True)).refreshes == ()


def test_of_several_logins_one_that_can_give_values_is_enough_for_a_drain() -> None:
    blind = replace(EAST, unavailable="the owner of east is BLIND")
    assert of_two(EAST, NEVER, claimable=1, refresh_in_progress=True).steps == DRAIN_AND_DERIVE
    decided = of_two(blind, NEVER, claimable=1, refresh_in_progress=True)
    assert decided.steps == ()
    assert "the owner of east is BLIND never downloaded" in decided.reason


def test_an_owner_of_one_login_says_nothing_of_another() -> None:
    decided = of_two(EAST, NEVER)
    assert set(decided.cursor.unowned_since) == {"west"}
