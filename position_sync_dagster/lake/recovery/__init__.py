"""What a loss of power tore: finding it in the tables of a lake, and taking a table back.

The command `position-sync doctor` imports `checkup`, which examines and repairs all tables. These
modules may import `lake/delta_log`, `lake/storage`, and the tables whose rows they put back.
"""
