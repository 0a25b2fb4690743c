"""Constants of the package that a test sets for its own duration, to wait for seconds, not hours.

Whoever plays a broker, or measures, replaces a constant in the module that applies it. A fixture of
every test sets all back.
"""

from importlib import import_module
from typing import Any

import pytest

# The name by which tests say it; the module and the constant.
_HOMES = {
    "gateway_timeout_s": "gateway.login.TIMEOUT_S",
    "gateway_silence_s": "gateway.connection.SILENCE_S",
    "answer_s": "processes.rehearsal.measured.ANSWER_S",
    "gateway_pace": "gateway.login.MESSAGE_PACE",
    "reconnect": "sync.stream.streamer.RECONNECT",
    "data_despite_loss_s": "sync.stream.streamer.DATA_DESPITE_LOSS_S",
    "long_loss_s": "sync.stream.streamer.LONG_LOSS_S",
    "min_hold_s": "sync.stream.lines.MIN_HOLD_S",
    "retry_waits": "gateway.codes.RETRY_WAITS",
    "line_silence_s": "domain.line.LINE_SILENCE_S",
    "model_silence": "domain.quote.MODEL_SILENCE",
    "max_last_age_s": "domain.valuation.MAX_LAST_AGE_S",
    "details_again": "sync.stream.contracts.DETAILS_AGAIN",
    "value_band": "domain.streamed_holding.VALUE_BAND",
    "settle_s": "domain.streamed_holding.SETTLE_S",
    "row_interval_s": "domain.streamed_holding.ROW_INTERVAL_S",
    "monitored_row_interval_s": "domain.streamed_holding.MONITORED_ROW_INTERVAL_S",
    "account_interval_s": "domain.account_state.ACCOUNT_INTERVAL_S",
    "account_quiet_s": "domain.account_state.ACCOUNT_QUIET_S",
    "positions_interval_s": "gateway.account_feed.POSITIONS_INTERVAL_S",
    "second_list_s": "domain.account_state.SECOND_LIST_S",
    "followed_s": "gateway.holdings.FOLLOWED_S",
    "profit_silence_s": "gateway.subscriptions.PROFIT_SILENCE_S",
    "streamed_pnl_subscriptions": "sync.stream.broker_values.STREAMED_PNL_SUBSCRIPTIONS",
    "publish_s": "sync.stream.broker_values.PUBLISH_S",
    "publish_many_s": "sync.stream.broker_values.PUBLISH_MANY_S",
    "moved_interval_s": "sync.stream.broker_values.MOVED_INTERVAL_S",
    "overflow_interval_s": "sync.stream.broker_values.OVERFLOW_INTERVAL_S",
    "max_batch_size": "sync.drain.MAX_BATCH_SIZE",
    "drain_time_limit_s": "sync.broker_view.DRAIN_TIME_LIMIT_S",
    "execution_looks_s": "sync.stream.position_changes.EXECUTION_LOOKS_S",
    "heartbeat_s": "sync.stream.ownership.HEARTBEAT_S",
    "login_wait_s": "sync.stream.streamer.LOGIN_WAIT_S",
    "step_end_s": "sync.stream.streamer.STEP_END_S",
    "work_again_s": "sync.stream.ownership.WORK_AGAIN_S",
    "rotate_after_s": "sync.stream.streamer.ROTATE_AFTER_S",
    "stale_after": "sync.confirmations.STALE_AFTER",
    "alert_after_s": "money.defs.alerts.ALERT_AFTER_S",
    "account_again": "domain.account_state.ACCOUNT_AGAIN",
    "gateway_client_ids": "settings.CLIENT_IDS",
    "lease_s": "sync.drain.LEASE_S",
}

_replaced = pytest.MonkeyPatch()


def is_constant(name: str) -> bool:
    """Return whether tests set a constant by this name."""
    return name in _HOMES


def replace_constant(name: str, value: Any) -> None:
    """Set a constant until the end of the test, or of the process."""
    module, _, constant = _HOMES[name].rpartition(".")
    _replaced.setattr(import_module(f"position_sync_dagster.{module}"), constant, value)


def restore() -> None:
    """Set every replaced constant back."""
    _replaced.undo()
