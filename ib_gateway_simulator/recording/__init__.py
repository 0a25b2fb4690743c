"""The recorder: a proxy between a client and a gateway that writes down what both say.

What identifies the account is replaced before it is written (docs/recording.md). It imports the
simulator's protocol, recordings and errors, and nothing else of the project; the command line
imports it.
"""
