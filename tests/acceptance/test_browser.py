"""One running demo in headless Chromium: what a person sees there, and what a click does."""

from collections.abc import Iterator

import polars as pl
import pytest
from selenium.webdriver.common.by import By

from position_sync_dagster.demo.programs import RECORDED, SESSIONS
from position_sync_dagster.lake import Lake
from position_sync_dagster.processes.dagster_dev import is_serving
from tests.support.browser import (
    BUTTON,
    GROUPS,
    LINEAGE,
    MISSING,
    STREAM_LAUNCHPAD,
    WHOLE_GRAPH,
    Page,
    is_installed,
    open_page,
)
from tests.support.demo_program import STREAMED, Demo, wait_for

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

MATERIALIZED = {
    "account": (
        "gateway",
        "broker_positions",
        "contracts",
        "gateway_sessions",
        "account_values",
    ),
    "path": ("active_strategies", "position_queue", "position_updates"),
    "reports": ("latest_positions", "strategy_exposure"),
}
"""The assets of each group that are green soon after the start."""

PATH = LINEAGE.format(group="path")


@pytest.fixture(scope="module")
def demo(chain_home) -> Demo:
    demo = chain_home.running()
    wait_for("the UI answers", lambda: is_serving(demo.ui_port))
    return demo


@pytest.fixture(scope="module")
def page(demo: Demo) -> Iterator[Page]:
    with open_page(demo.ui_port) as page:
        yield page


def recorded(demo: Demo) -> dict[str, int]:
    """Return the days in `daily_positions`, each with its number of rows."""
    if not (demo.lake / "daily_positions" / "_delta_log").exists():
        return {}
    counts = demo.table("daily_positions").group_by(pl.col("session_date").cast(str)).len()
    return dict(counts.iter_rows())


def test_the_missing_days_are_chosen_and_launched_as_a_backfill(demo, page):
    """Dagster's daemon takes it up within half a minute: the last test looks at its days."""
    wait_for("the newest sessions are recorded", lambda: len(recorded(demo)) == RECORDED)
    page.open("/assets/daily_positions?view=partitions")
    page.wait_for_text(f"Materialized ({RECORDED})", f"Missing ({SESSIONS - RECORDED})")
    page.open_dialog("//button[starts-with(normalize-space(), 'Materialize')]", "Missing")
    page.button("Missing")
    page.wait_for_text(f"{SESSIONS - RECORDED} partitions")
    page.button("Launch backfill")
    page.wait_until_gone("Launch runs to materialize")


def test_the_lineage_is_whole_on_one_screen_and_its_groups_are_green(demo, page):
    page.open(GROUPS, size=(1440, 900))
    page.wait_for_text(*MATERIALIZED)
    for group, names in MATERIALIZED.items():
        page.open(LINEAGE.format(group=group), size=WHOLE_GRAPH)
        for name in names:
            wait_for(f"{name} is green", lambda n=name: page.is_green(n))
        assert "Never" not in page.text()
    page.open(PATH, size=WHOLE_GRAPH)
    wait_for("the checks pass", lambda: page.checks_pass("position_updates"))


def test_a_check_goes_bad_and_good_again_as_the_gateway_goes_and_comes(demo, page):
    wait_for("the checks pass", lambda: page.checks_pass("position_updates"))
    demo.post("connectivity", state="lost")
    wait_for("a check is bad", lambda: page.checks_pass("position_updates") is False)
    demo.post("connectivity", state="restored_data_kept")
    wait_for("the checks are good", lambda: page.checks_pass("position_updates"))
    page.open("/assets/position_updates?view=checks")
    page.wait_for_text("a_stream_watches", "A stream sees the gateway.")


def test_the_exposure_page_shows_the_money_of_each_strategy_and_a_picture(demo, page):
    page.open("/assets/strategy_exposure?view=overview")
    page.wait_for_text("money USD", "iron-condor-1", "daily", "delta USD")
    link = "//a[contains(@href, 'view=events&time=')]"

    def picture_is_offered() -> bool:
        return "[Show Markdown]" in page.text() or bool(page.driver.find_elements(By.XPATH, link))

    wait_for("the picture, or a link to it", picture_is_offered)
    if "[Show Markdown]" not in page.text():
        page.driver.get(page.driver.find_element(By.XPATH, link).get_attribute("href"))
    page.click("//*[text()='[Show Markdown]']")
    wait_for("a picture is drawn", lambda: page.largest_picture() >= (600, 300))


def test_the_stream_is_terminated_and_resumed(demo, page):
    lake = Lake(str(demo.lake))
    wait_for("all lines are in use", lambda: demo.lines() == STREAMED)
    (before,) = lake.sessions.history(1)
    page.open(f"/runs/{before.run_id}")
    page.open_dialog(BUTTON.format(label="Terminate"), "Terminate 1 run")
    page.button("Terminate 1 run")
    wait_for("the lines are free", lambda: demo.lines() == 0)
    page.open(f"/runs/{before.run_id}")
    page.wait_for_text("Canceled")
    page.open(STREAM_LAUNCHPAD)
    page.button("Launch Run")
    wait_for("it streams again", lambda: demo.lines() == STREAMED)
    page.open(PATH, size=WHOLE_GRAPH)
    wait_for("the checks are good", lambda: page.checks_pass("position_updates"))


def test_the_days_of_the_backfill_are_filled_with_rows(demo, page):
    wait_for("its days have rows", lambda: len(recorded(demo)) == SESSIONS)
    assert min(recorded(demo).values()) >= 190
    page.open("/assets/daily_positions?view=partitions")
    page.wait_for_text(f"Materialized ({SESSIONS})", "Missing (0)", "Failed (0)")
