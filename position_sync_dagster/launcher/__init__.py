"""How Dagster starts a run on one machine: at once, forked from a process that imported Dagster.

Dagster's own launcher starts a new interpreter for each run, which imports for a second and a half
before it does anything; a drain then works for a few tenths of one. And its queue of runs is looked
at once a second at most. `dagster.yaml` names the launcher and the queue of this package. It
imports Dagster; nothing of the package imports it.
"""
