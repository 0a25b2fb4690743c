"""The checks of the core; the docstring of each is what Dagster shows, and says what to do.

To change …, open …

- A check: its text, its limits (`SCARCE`, `SAME_TIME`, `ERROR_AFTER`, `UNDECIDED_AFTER`), and
  which differences make an ERROR: `tables.py`; that of past days: `defs/assets/past_days.py`.
- How often checks are evaluated (`ALL_EVERY_S`, `FAILED_EVERY_S`), when a result is stored again
  (`STORED_EVERY`, `REWORDED_EVERY`), which ones `doctor` ends with 1 for (`VALUE_CHECKS`), and how
  the results of several logins become one: `evaluation.py`.
"""
