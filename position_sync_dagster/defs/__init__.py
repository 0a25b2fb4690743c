"""What Dagster runs and shows of the core: resource, assets, checks, jobs, sensors, schedules.

`component` loads every module here, with its definitions; a table that ticks derive and a check
are listed besides (`Composition.written_by_ticks`, `TABLE_CHECKS`). A table of past days is not:
`close_day` writes it, by an asset with `over_trading_days` (`assets/past_days.py`). Decisions of
the stream and the drain are in `sync`. Dagster looks for definitions in every name of a module:
Polars' `col`, which has any attribute, must be none.

To change …, open …

- What a tick of `drain_queue` does, and in which order; how often a table is reported
  (`STREAMED_EVERY`, `DERIVED_EVERY`, `ALL_EVERY`); what an event of a tick says: `tick.py` (of
  strategies and queue: `assets/queue_and_ledger.py`; of breaks: `checks/tables.py`). The sensor
  around it: `drain.py`. How often it drains: `drain_interval_s` of `settings.py`.
- The job of the stream; when its run is started, paused, given up or replaced (`supervise`,
  `RESTART`, `START_GRACE`), and how often the supervisor looks (`SUPERVISE_S`): `stream.py`.
- When past days are recorded, and again at night (`LATE_DAYS`): `closing.py`; the time after the
  close: `sync/exchange_days.py`.
- When tables are maintained, and which runs and events are deleted: `maintenance.py`; after how
  many days: `history_days` of `settings.py`.
- An asset, its text, metadata, freshness or partitions: `assets/`. A check, its text, limits and
  how often it is evaluated: `checks/`. The group and part of an asset, owners, tags, key prefix:
  `component.py`.
- What a project's definitions are made of, which tables ticks write, what an extension adds
  (parts, pages, jobs): `composition.py`.
- How a sensor is made of a tick, its shortest interval (`TICK_S`), cursors, names of jobs, errors
  in Dagster, the settings that its page shows: `resources.py`.
- Private symbols of Dagster: `dagster_internals.py`.
"""
