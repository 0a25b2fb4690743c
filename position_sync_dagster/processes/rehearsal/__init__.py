"""A rehearsal: an hour of the stream beside TWS, and what it showed of the gateway.

`watch` keeps what the measures need, `measures` holds it against the design, `values` against the
broker's own values; `report` makes the page and the file of it, and `run` does all of it.
"""
