"""The stream: it values active legs by market data lines, and queues every other position.

Import `service.stream` (the stream with its lease, as a run does it) or
`streamer.IBPositionStreamer` (as a library) from here. The modules may import `sync.owner`,
`gateway`, `lake`, `settings` and `domain`, and never `sync.drain`.
"""
