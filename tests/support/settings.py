"""Settings of a test, in which constants may have other values too."""

from typing import Any

from position_sync_dagster.settings import Settings


def make_settings(**values: Any) -> Settings:
    """Return settings without a `.env` file; a value of a constant replaces it in this object."""
    fields = {"_env_file": None}
    constants = {}
    for name, value in values.items():
        is_field = name in Settings.model_fields or name == "_env_file"
        assert is_field or hasattr(Settings, name), name
        # The lease of a session may be shorter than a heartbeat only with another heartbeat.
        (fields if is_field and name != "session_lease_s" else constants)[name] = value
    return Settings(**fields).model_copy(update=constants)
