"""The assets of the core; the docstring of each is what Dagster shows.

To change …, open …

- How an asset is made of a table; freshness, lineage and metadata that several share; the external
  assets, which the owner of the login writes, and the gateway: `table_asset.py`.
- `active_strategies`, `position_queue` and `position_updates`, and how a strategies file is
  applied: `queue_and_ledger.py`. When it is: `Work._apply_strategies` of `defs/tick.py`.
- `latest_positions`, and how long a closed holding stays in it (`CLOSED_KEPT`):
  `latest_positions.py`.
- `daily_positions`, its partitions, its first day, and the check `days_are_complete`:
  `past_days.py`. When it is recorded: `defs/closing.py`.
"""
