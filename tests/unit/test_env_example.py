"""`.env.example` and the settings agree."""

import re
from pathlib import Path

import pytest

from position_sync_dagster.settings import PREFIX, Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"


def shown() -> dict[str, str]:
    lines = re.findall(rf"^#?{PREFIX}(\w+)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert len(lines) == len(dict(lines)), "a setting is shown twice"
    return dict(lines)


def test_each_setting_is_documented_and_nothing_else():
    assert set(shown()) == {name.upper() for name in Settings.model_fields}


def test_nothing_is_set_by_copying_the_example():
    assert not re.findall(r"^[^#\n]", EXAMPLE.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("name", sorted(shown()))
def test_the_value_shown_is_the_default(name):
    text, default = shown()[name], Settings.model_fields[name.lower()].default
    if default in (None, ()):
        assert text == "", "it is unset"
    else:
        assert getattr(Settings(_env_file=None, **{name.lower(): text}), name.lower()) == default


def test_there_are_at_most_32_settings():
    assert len(shown()) <= 32


def test_the_example_can_be_loaded_as_a_whole(tmp_path):
    text = re.sub(rf"^#({PREFIX}\w+=.)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    (tmp_path / "all.env").write_text(text)
    assert Settings(_env_file=tmp_path / "all.env") == Settings(_env_file=None)
