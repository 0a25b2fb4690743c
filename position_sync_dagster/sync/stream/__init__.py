"""The stream: it values active legs by market data lines, and queues every other position.

Runs import `service.stream`, the stream with its lease; library users import
`streamer.IBPositionStreamer`. The modules may import `sync.owner`, `gateway`, `lake`, `settings`
and `domain`, and never `sync.drain`.
"""
