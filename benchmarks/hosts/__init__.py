"""Several logins on one host, an object store and Postgres."""

from benchmarks.hosts.many import many
from benchmarks.hosts.sensors import sensors

TITLE = "Several logins"

SECTIONS = {"sensors": sensors, "many": many}
