"""Programs that run beside this one: start them, end them, lock their folder and find their ports.

Import the module that you need: `child_process`, `home`, `ports`, `preflight`, `repair` or
`supervisor`. The package may import `sync`, `settings` and what is below them; `sensor_states`,
which the supervisor starts, imports Dagster besides.
"""
