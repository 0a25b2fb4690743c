"""What runs Dagster here: the supervisor, its programs, the launcher of runs, the guarded port.

`services` starts the code server, the daemon and the webserver and keeps them running;
`standby_daemon` is the daemon of each of several hosts. `launcher`, `run_process` and `run_queue`
are named in `dagster.yaml`. `dagster_internals` holds every private symbol of Dagster; `defs` uses
it too. The other modules belong to programs of their own, and nothing else of the package imports
them. They import Dagster, `processes`, `sync.alerts` and the settings.
"""
