"""Books: YAML files with what a simulated login knows at the start, and how they are read.

Everything above may import `book` and `loader`, and the scenarios read files with `yaml_source`;
this package imports market (values only) and protocol.
"""
