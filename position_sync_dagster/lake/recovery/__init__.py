"""What a loss of power tore: finding it in the tables of a lake, and taking a table back.

The command `position-sync doctor` imports `diagnosis` and `repair`; they may import
`lake/delta_log`, `lake/storage`, and the queue and the ledger whose rows they put back.
"""
