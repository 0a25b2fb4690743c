"""Money: what follows from the tables of the core, and is known by none of it.

Its folders may import the core's tables, records and settings, and neither a stream nor a drain.
The faces, `web`, `cli`, `terminal`, `demo`, read both halves.
"""
