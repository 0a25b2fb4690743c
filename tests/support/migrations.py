"""Dagster's migrations, which each of its instances reads: 90 small files, four times."""

from functools import wraps

from alembic.config import Config
from alembic.script import ScriptDirectory


def keep_migrations() -> None:
    """Make alembic read the migrations of each storage once per process."""
    if hasattr(ScriptDirectory.from_config, "__wrapped__"):
        return
    read = ScriptDirectory.from_config
    kept = dict[str | None, ScriptDirectory]()

    @wraps(read)
    def from_config(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        return kept.get(place) or kept.setdefault(place, read(config))

    ScriptDirectory.from_config = from_config  # type: ignore[method-assign]
