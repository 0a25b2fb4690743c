"""A rehearsal: an hour of the stream beside TWS, and what it showed of the gateway.

`values` holds our values against the broker's own, `report` makes the page and the file, and `run`
does all of it. What the gateway says is counted by `processes/heard/wire.py`, and its answers and
delays are those of `measured`.
"""
