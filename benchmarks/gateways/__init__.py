"""Several logins in one lake: how many it carries, on a disk and in a store."""

from benchmarks.gateways.sections import carried

TITLE = "Many gateways in one lake"

SECTIONS = {"carried": carried}
