"""Services between the gateway and the lake: the stream, the drain, reconciliation, past days.

`defs`, `cli` and `demo` may import the services from here. The modules may import `gateway`,
`lake`, `settings` and `domain`, and never Dagster.
"""
