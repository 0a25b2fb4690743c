"""Parts that every owner of a login uses: the lease, the publisher of positions, the counters.

`sync.stream`, `sync.drain` and `sync.reports` may import everything here. The modules may import
`gateway`, `lake`, `settings` and `domain`, and none of the services above them.
"""
