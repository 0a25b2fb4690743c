"""Several logins on two hosts, an object store and Postgres, and what is lost on a bad day."""

from benchmarks.hosts.many import many
from benchmarks.hosts.sensors import sensors
from benchmarks.hosts.together import takeover, together

TITLE = "Several logins on two hosts"

SECTIONS = {"together": together, "takeover": takeover, "sensors": sensors, "many": many}
