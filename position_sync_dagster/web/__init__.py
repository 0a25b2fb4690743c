"""What a browser can reach on this machine: the guard of each port, and Dagster behind it.

`loopback_guard` imports nothing of the package, and the simulator uses it too. The other modules
are programs of their own: they import Dagster, and nothing imports them.
"""
