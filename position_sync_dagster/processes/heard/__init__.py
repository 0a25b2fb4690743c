"""What gateways say, by its kinds and without account data: counted by the day, and by a rehearsal.

`wire` counts it, and `known_wire.json` has what is known of it. `heard_lake` has the table, and
`daily` the part of a stream that fills it. `money` may import both.
"""
