"""Dagster on one machine: what is started for it, and the guard before what a browser can reach.

`loopback_guard` imports nothing of the package, and the simulator uses it too. The other modules
belong to programs of their own: they import Dagster, and nothing else imports them.
"""
