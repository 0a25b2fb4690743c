"""Programs that run beside this one: start them, end them, lock their folder and find their ports.

Import the module that you need: `child_process`, `dagster_dev`, `home`, `ports`, `preflight`,
`reaper` or `stop_request`. The package may import `sync`, `settings` and what is below them.
"""
