"""How Dagster starts a run on one machine: forked from a process that has imported Dagster already.

Dagster's own launcher starts a new interpreter for each run, which imports for a second and a half
before it does anything; a drain then works for a few tenths of one. `dagster.yaml` names the
launcher of this package. It imports Dagster; nothing of the package imports it.
"""
