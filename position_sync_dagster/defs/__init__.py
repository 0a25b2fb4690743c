"""The Dagster definitions: one resource, assets, checks, and jobs with their sensors and schedules.

Only `definitions` imports this package; it loads every module here, so a new definition needs no
registration. It may import everything but the CLI and the demo. It holds no logic of its own:
decisions are in `sync`, and services are imported when a step runs.
"""
