"""Settings of a test, beside which constants may be replaced too."""

from typing import Any

from position_sync_dagster.settings import Settings
from tests.support import constants


def make_settings(**values: Any) -> Settings:
    """Return settings without a `.env` file; what is a constant is replaced for the whole test."""
    fields: dict[str, Any] = {"_env_file": None}
    unchecked = {}
    for name, value in values.items():
        if constants.is_constant(name):
            constants.replace_constant(name, value)
        elif name == "session_lease_s":  # shorter than the heartbeat only with another heartbeat
            unchecked[name] = value
        else:
            assert name in Settings.model_fields or name == "_env_file", name
            fields[name] = value
    return Settings(**fields).model_copy(update=unchecked)
