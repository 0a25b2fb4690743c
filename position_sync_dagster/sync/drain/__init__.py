"""The drain: value the requests of the queue without market data lines, and refresh the queue.

Import `drain` from `run`, `refresh` from `refresh` and `QueueWorker` from `worker`. It may import
`sync.owner`, `sync.decisions`, `sync.run_reports`, the lake, the gateway and the domain; it knows
nothing of the stream and of Dagster.
"""
