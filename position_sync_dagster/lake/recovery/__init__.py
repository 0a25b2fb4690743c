"""Recovery from a loss of power: find torn commits, and return a table to a whole version.

The command `position-sync doctor` imports `checkup`, which examines and repairs all tables. These
modules may import `lake/delta_log`, `lake/storage`, and the tables whose rows they put back.
"""
