"""The Dagster definitions: one resource, assets, checks, and jobs with their sensors and schedules.

Only `definitions` imports this package. It loads every module here, so a new definition needs no
registration. The modules may import everything except the CLI and the demo. They have no logic of
their own: decisions are in `sync`, and services are imported when a step runs.

Dagster asks each name of a module for its attributes: `col` of Polars, which has any, is none here.
"""
