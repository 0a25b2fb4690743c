"""One Delta table, on a disk or in an object store; it knows `lake/schema`, and no table.

To change …, open …

- How a table is read and changed; how long a change is tried again (`CONTENTION_S`):
  `table.py`. The loop of its attempts (`retried`), the pauses between
  (`PAUSE`), what a commit checks and writes: `commits.py`.
- Which failure is a conflict, a damaged table, a full disk or a store that is away, and its text:
  `commit_errors.py`.
- After how many versions a checkpoint is written, the log is cut and small files are merged
  (`Upkeep`, beside the writers); creating, migrating and refusing a table; the lock that makes
  writers fair: `opening.py`.
- Which files are small (`SMALL_BYTES`, `WRITER_SMALL_BYTES`), what a merge reads, and what
  maintenance does: `merges.py`. How often it runs: `defs/maintenance.py`.
- What is synced to the disk, and which last commit counts as torn: `durability.py`.
- Rows that change until they are finished, as those of queue, registry, sessions and breaks:
  `lifecycle_table.py`.
- Which data files may have a row: `data_files.py`. Timeouts and keys of a store:
  `object_store.py`. Threads for blocking work: `threads.py`.
"""
