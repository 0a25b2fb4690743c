"""Past days: what the ledger knows of their close, and what the broker's statements say.

`defs` may import the services from here. The modules may import `gateway.flex`, the lake,
`sync.reports` and the domain; they know neither the stream nor the drain.
"""
