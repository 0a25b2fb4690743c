"""Dagster on one machine: what is started for it, and the guard before what a browser can reach.

`loopback_guard` imports nothing of the package, and the simulator uses it too. The other modules
belong to programs of their own, and nothing else imports them: `dagster_services` keeps the others
running, `daemon` and `webserver` import Dagster.
"""
