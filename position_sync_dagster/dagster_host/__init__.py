"""The programs around Dagster: the supervisor, its programs, the run launcher, the guarded port.

`services` starts the code server, the daemon and the webserver and keeps them running.
`standby_daemon` is the daemon for several hosts. `dagster.yaml` names `launcher`.
The fork server of the runs imports `preloaded`.
`dagster_internals` has every private symbol of Dagster; `defs` uses it too. The other modules are
separate programs, and nothing else in the package imports them. They import Dagster, `processes`,
`sync.alerts` and the settings.
"""

LACKING = 76
"""Exit code of these programs if Dagster lacks a private symbol that they need (EX_PROTOCOL). It is
here since the supervisor does not import Dagster."""
