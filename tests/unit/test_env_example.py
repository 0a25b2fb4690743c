"""`.env.example` and the settings agree."""

import re
from pathlib import Path

import pytest

from position_sync_dagster.settings import PREFIX, Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
NO_DEFAULT = {
    "GATEWAYS_FILE",
    "STRATEGIES_FILE",
    "TRADING_MODE",
    "UNDERLYING_LINES",
    "DAILY_START",
    "FLEX_TOKEN",
    "FLEX_QUERY_ID",
    "ALERT_URLS",
}


def shown() -> dict[str, str]:
    lines = re.findall(rf"^#?{PREFIX}(\w+)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert len(lines) == len(dict(lines)), "a setting is shown twice"
    return dict(lines)


def test_each_setting_is_documented_and_nothing_else():
    assert set(shown()) == {name.upper() for name in Settings.model_fields}


def test_nothing_is_set_by_copying_the_example():
    assert not re.findall(r"^[^#\n]", EXAMPLE.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(shown()) - NO_DEFAULT))
def test_the_value_shown_is_the_default(name):
    text = shown()[name]
    default = Settings.model_fields[name.lower()].default
    if isinstance(default, tuple):
        assert getattr(Settings(**{name.lower(): text}), name.lower()) == default
    elif isinstance(default, dict):
        assert text == ",".join(f"{key}={value:g}" for key, value in default.items())
    elif isinstance(default, bool):
        assert text == str(default).lower()
    elif isinstance(default, str | Path):
        assert text == str(default)
    else:
        assert float(text) == float(default)


def test_the_example_can_be_loaded_as_a_whole(tmp_path):
    text = re.sub(rf"^#({PREFIX})", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    (tmp_path / "all.env").write_text(text)
    settings = Settings(_env_file=tmp_path / "all.env")
    assert settings.trading_mode == "PAPER"
    assert settings.gateway_port == 7497
