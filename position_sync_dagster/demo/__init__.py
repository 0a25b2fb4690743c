"""The demo: the whole system on a simulated gateway, with a live status and an acceptance test.

The command line imports `run`; the other modules are for the demo only. The package may import
`processes`, `terminal`, `sync` and what is below them, and starts the simulator as a process.
"""
