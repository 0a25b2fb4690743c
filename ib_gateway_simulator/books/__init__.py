"""Books: YAML files with the state of a simulated login at the start, and the code that reads them.

Everything above may import `book` and `loader`, and the scenarios read files with `yaml_source`;
this package imports market (values only) and protocol.
"""
