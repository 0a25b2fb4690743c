"""Everything that knows Delta Lake: a module for each table, or group of tables.

Only this package imports `deltalake`. `lake.Lake` has all tables at once.

To change …, open …

- Columns, the form of ids, partitions, descriptions; how long the log and replaced files of a new
  table are kept (`RETENTION`, `kept`; one that exists keeps its own): `schema.py`. Most columns are
  fields of a dataclass in `domain/`, those of the ledger of `domain/position_update.py`. One column
  more needs a greater `version` of its table there, and what fills it, such as `details_of` of
  `gateway/translate.py` for contracts.
- Which tables there are; what changed between two versions of one: `lake.py`.
- **The queue**: its calls and their arguments: `position_queue.py`. All that becomes of a request:
  `queue_transitions.py`: the order of claims (`claim_order`, `PROMOTE_AFTER_S`), one live request
  for a holding, who may act on it, what a success, a failure, a release or a dead worker costs
  (`fail_requests`, `rescue_requests`). The numbers of it: `domain/queue_request.py`: how long a
  claim lasts (`LEASE_S`), attempts and back-off (`RetryPolicy`). How many a drain claims:
  `sync/drain.py`, `batch_size` of `settings.py`.
  Finished requests are kept for good (docs/queue.md): nothing deletes one.
- **The ledger**: how a row is added once, and refused: `position_updates.py`. What its id is made
  of: `_update_id` there, and `_own_id` of `sync/drain.py` for a row of the drain. Which row is the
  newest, clocks that were set back: `ledger_rows.py`. Readers with tokens: `followed_rows.py`.
  Its rows are kept for good.
- What the broker reported, and when it is written anew (`FOLD_FILES`): `broker_positions.py`;
  of accounts: `account_values.py`; of contracts: `contracts.py`; changes of quantities, and other
  facts that are stored once: `records.py`.
- Who owns a login, by which token: `sessions.py`. How long its lease lasts: `session_lease_s` of
  `settings.py`; how often it is renewed: `sync/stream/ownership.py`.
- The active legs, and who may hold the whole of one: `strategy_registry.py`; the strategies file:
  `strategies_file.py`; a field of a leg, and its priority by default: `given_leg.py`.
- Breaks: how they are stored, and what people say of them: `breaks.py`. When one is confirmed, and
  ends: `domain/reconciliation.py` (`after_comparison`).
- How a derived table is replaced: `derived.py`; the value at a close: `sync/past_days.py`.
- Commits, conflicts, merges, migrations, checkpoints, syncing, object stores: `storage/`. When
  files are merged, and the log has a checkpoint: `Upkeep` of `storage/opening.py`; the property
  `delta.checkpointInterval` of `schema.py` counts for other writers alone.
"""
