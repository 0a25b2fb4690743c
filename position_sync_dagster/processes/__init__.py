"""Programs that run beside this one: start them, end them, lock their folder and find their ports.

Import the module of the thing that you need: `child_process`, `dagster_dev`, `home`, `home_lock`,
`stop_request` and so on. The package may import `settings`, `errors` and what is below them.
"""
