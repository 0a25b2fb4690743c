"""The steps of the queue's state machine, as pure functions from live rows to a `Change`.

They may import the domain and `lake.storage`; only the queue itself, and the repair of a lake for
`request_rows`, may import them.
"""
