"""`/metrics` over real tables, and whether dashboard and alerts ask for what a scrape has."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from position_sync_dagster import dagster_files
from position_sync_dagster.dagster_files import FailingCheck
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.position_update import Source, ValueOrigin
from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.lake.position_updates import SyncUpdates
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.sync.drain import drain
from position_sync_dagster.web import metrics
from position_sync_dagster.web.money_page import money_routes
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.web.test_figures import row
from tests.support.holdings import make_holding
from tests.support.legs import leg
from tests.support.sessions import own

DEPLOY = Path(__file__).parents[3] / "deploy"
GATEWAY = "127.0.0.1:7497"
Samples = Mapping[str, list[tuple[dict[str, str], float]]]


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    (tmp_path / "dagster").mkdir()


@pytest.fixture
def scrape(settings):
    """Return a function that scrapes a server that has just started, as Prometheus does."""

    async def scraped() -> Samples:
        routes = money_routes(dagster=False, open_figures=lambda: PageFigures(settings))
        transport = httpx.ASGITransport(Starlette(routes=routes))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.get("/metrics")
            assert answer.status_code == 200, answer.text
            samples = defaultdict(list)
            for family in text_string_to_metric_families(answer.text):
                for sample in family.samples:
                    samples[sample.name].append((sample.labels, sample.value))
            return samples

    return scraped


def at_work(lake: MoneyLake, gateway_id: str) -> None:
    """Fill the tables as a stream and its ticks do, with trouble of each kind."""
    then = utc_now() - timedelta(seconds=40)
    of_login = {
        "account": "U1", "gateway_id": gateway_id, "completeness": Completeness.COMPLETE,
        "confirmed_at": then,
    }  # fmt: skip
    held = [make_holding(conid, then, position=-2.0, **of_login) for conid in (1, 2, 3)]
    lake.broker_positions.replace(gateway_id, held)
    lake.registry.sync.add_many([leg(1, "a"), leg(9, "a")])
    value = {"value_source": ValueOrigin.PORTFOLIO, "value_time": then, "gateway_id": gateway_id}
    streamed = value | {"value_source": ValueOrigin.TICK, "timestamp": then}
    queued = [row(conid, source=Source.QUEUE, timestamp=then, **value) for conid in (2, 3)]
    lake.updates.sync.append([row(1, source=Source.STREAM, **streamed), *queued])

    lines = {"lines_in_use": 7, "line_limit": 90, "underlying_lines": 1}
    own(lake, gateway_id, state=SessionState.LIVE, **lines)
    lake.queue.sync.insert_many([QueueRequest(2, "SPY"), QueueRequest(3, "SPY")])

    dagster_files.note(dagster_files.WORKED_TICK)
    dagster_files.note(dagster_files.DURATION, "0.250")
    part = dagster_files.PartOfTicks(name="checks").after(0.02).after(0.3)
    dagster_files.note_all(
        dagster_files.TICK_PARTS, [part, dagster_files.PartOfTicks(name="drain").after(99.0)]
    )
    broken = FailingCheck(name="position_updates: ids_are_unique", is_of_values=True, text="2.")
    unknown = FailingCheck(name="books: books_close", is_of_values=False, text="?", is_unknown=True)
    dagster_files.note_all(dagster_files.CHECKS, [broken, unknown])


async def test_a_scrape_says_how_logins_legs_queue_ticks_and_checks_are(scrape, lake, settings):
    at_work(lake, settings.gateway_id)
    samples = await scrape()
    states = {labels["state"]: value for labels, value in samples["position_sync_login_state"]}
    assert states == dict.fromkeys([*SessionState, "NONE"], 0.0) | {"LIVE": 1.0}
    assert samples["position_sync_lines_in_use"] == [({"gateway": GATEWAY}, 7.0)]
    assert samples["position_sync_line_limit"] == [({"gateway": GATEWAY}, 90.0)]
    legs = {labels["is"]: value for labels, value in samples["position_sync_legs"]}
    assert legs["held"] == 3.0
    assert legs["active"] == 2.0
    assert legs["active_held"] == 1.0

    rows = {
        labels["source"]: value for labels, value in samples["position_sync_rows_written_total"]
    }
    ((_labels, age),) = samples["position_sync_oldest_value_age_seconds"]
    assert 40.0 <= age < 640.0
    assert rows == {"STREAM": 1.0, "QUEUE": 2.0}
    queue = {labels["status"]: value for labels, value in samples["position_sync_queue_requests"]}
    assert queue == {"PENDING": 2.0, "PROCESSING": 0.0, "SUCCESS": 0.0, "FAILED": 0.0}
    assert samples["position_sync_tick_duration_seconds"] == [({}, 0.25)]
    took = {
        (labels["part"], labels["le"]): count
        for labels, count in samples["position_sync_tick_part_seconds_bucket"]
    }
    assert took["checks", "0.01"] == 0.0
    assert took["checks", "0.025"] == took["checks", "0.25"] == 1.0
    assert took["checks", "0.5"] == took["checks", "+Inf"] == 2.0
    assert took["drain", "30.0"] == 0.0
    assert took["drain", "+Inf"] == 1.0
    assert samples["position_sync_tick_part_seconds_sum"][0] == ({"part": "checks"}, 0.32)
    checks = [labels for labels, _value in samples["position_sync_check_not_passed"]]
    assert checks == [
        {"asset": "position_updates", "check": "ids_are_unique", "result": "FAILED"},
        {"asset": "books", "check": "books_close", "result": "UNKNOWN"},
    ]


async def test_what_is_unknown_has_no_sample_and_no_account_is_named(scrape, lake, settings):
    found = await scrape()
    for name in ("oldest_value_age", "tick_duration", "last_tick_timestamp", "last_drained_age"):
        assert found[f"position_sync_{name}_seconds"] == []
    assert found["position_sync_lines_in_use"] == []
    assert ({"gateway": GATEWAY, "state": "NONE"}, 1.0) in found["position_sync_login_state"]
    at_work(lake, settings.gateway_id)
    labels = {value for samples in (await scrape()).values() for one, _ in samples for value in one}
    assert labels <= {
        *("asset", "check", "gateway", "is", "le", "part", "result", "source", "state", "status"),
        *("dagster", "deltalake", "ib_async", "polars", "python", "version"),
    }


def test_scrapes_of_one_moment_share_a_read(lake, settings):
    page = metrics.MetricsPage(PageFigures(settings).figures, lake.updates.sync)
    lake.updates.sync.append([row(1)])
    now = utc_now()
    first = page.answer("", now).body
    lake.updates.sync.append([row(2)])
    assert page.answer("", now + timedelta(seconds=metrics.SHARED_S / 2)).body == first
    assert page.answer("", now + timedelta(seconds=metrics.SHARED_S)).body != first


def test_rows_are_counted_on(lake):
    updates = lake.updates.sync
    counter = metrics.RowCounter(updates)
    assert dict(counter.read()) == {}
    updates.append([row(1, source=Source.STREAM)])
    assert dict(counter.read()) == {"STREAM": 1}
    updates.append([row(2, source=Source.QUEUE), row(3, source=Source.STREAM)])
    assert dict(counter.read()) == {"STREAM": 2, "QUEUE": 1}


async def test_tables_that_cannot_be_read_fail_the_scrape(settings, monkeypatch):
    def broken(_now: object) -> None:
        raise metrics.PositionSyncError("The table is broken.", remedy="Restore it.")

    answer = metrics.MetricsPage(broken, SyncUpdates).answer("", utc_now())
    assert answer.status_code == 503
    assert b"Restore it." in answer.body


def alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


async def test_the_alert_of_failed_requests_ends_with_the_next_values_of_their_holdings(
    scrape, lake, settings
):
    at_work(lake, settings.gateway_id)
    requests = lake.queue.sync.claim_batch(2)
    errors = {request.request_id: "no price" for request in requests}
    lake.queue.sync.mark_failed_many(errors, retryable=False)
    lake.queue.sync.insert_many([QueueRequest(99, "SPY")])  # no account ever held it
    assert (await drain(lake, settings)).failed == 1
    [rule] = [rule for rule in alert_rules() if rule["alert"] == "PositionSyncRequestsFailed"]
    name, threshold = rule["expr"].split(" > ")

    async def is_firing() -> bool:
        ((_labels, value),) = (await scrape())[name]
        return value > float(threshold)

    assert await is_firing()
    lake.updates.sync.append([row(2, update_id="next-2")])
    assert await is_firing(), "of the other one"
    lake.updates.sync.append([row(3, update_id="next-3")])
    assert not await is_firing()
    counts = {labels["status"]: n for labels, n in (await scrape())["position_sync_queue_requests"]}
    assert counts["FAILED"] == 3.0


def test_no_alert_compares_a_count_that_never_falls():
    """Finished requests are kept for ever; an alert over their number would never end."""
    names = {selector.name for rule in alert_rules() for selector in selectors(rule["expr"])}
    assert "position_sync_queue_requests" not in names
    assert not [name for name in names if name.endswith("_total")]


def queries() -> Iterator[tuple[str, str]]:
    """Yield each query of the dashboard and of the alerts, with the text that names its labels."""
    dashboard = json.loads((DEPLOY / "grafana/position-sync.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]

    for rule in alert_rules():
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        yield rule["expr"], " ".join(rule["annotations"].values())


def selectors(expression: str) -> list[promql.VectorSelector]:
    """Return what a query reads; raise an error for one that is no PromQL."""
    parts: list[promql.Expr] = []
    promql.walk(promql.parse(expression), lambda part: parts.append(part))
    return [part for part in parts if isinstance(part, promql.VectorSelector)]


def matches(labels: Mapping[str, str], matcher: promql.Matcher) -> bool:
    if matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe):
        is_equal = re.fullmatch(matcher.value, labels[matcher.name]) is not None
    else:
        is_equal = matcher.value == labels[matcher.name]
    return is_equal == (matcher.op in (promql.MatchOp.Re, promql.MatchOp.Equal))


async def test_each_query_of_dashboard_and_alerts_finds_its_series(scrape, lake, settings):
    at_work(lake, settings.gateway_id)
    claimed = lake.queue.sync.claim_batch(1)
    lake.queue.sync.mark_success([request.request_id for request in claimed])
    found = await scrape()
    asked = list(queries())
    assert len(asked) > 20

    for expression, text in asked:
        named = set(re.findall(r"\{\{ *\$?(?:labels\.)?(\w+)", text)) - {"value"}
        for selector in selectors(expression):
            if selector.name == "up":  # Prometheus' own
                continue
            matchers = selector.matchers.matchers
            samples = [
                labels
                for labels, _value in found[selector.name]
                if all(matches(labels, matcher) for matcher in matchers)
            ]
            assert samples, (expression, selector.name)
            assert named <= samples[0].keys(), (expression, text)
