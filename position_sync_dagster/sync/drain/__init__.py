"""The drain: value the requests of the queue without market data lines.

Import `drain` from `drain`, and `QueueWorker` from `worker`. The modules may import the modules
directly in `sync`, the lake, the gateway and the domain, and never the stream or Dagster.
"""
