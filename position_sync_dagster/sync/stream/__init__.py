"""The stream: it owns a login, values active legs by market data lines, and queues the others.

Runs import `streamer.stream`, the stream with its lease; library users import
`streamer.IBPositionStreamer`. The modules may import `gateway`, `lake`, `settings` and `domain`,
and never `sync.drain`.
"""
