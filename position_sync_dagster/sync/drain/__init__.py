"""The drain: value the requests of the queue without market data lines, and refresh the queue.

Import `drain` and `refresh` from `refresh`, and `QueueWorker` from `worker`. The modules may import
`sync.owner`, the modules directly in `sync`, the lake, the gateway and the domain, and never the
stream or Dagster.
"""
