"""The connections of clients, and the counts about them.

The services send through `ClientConnection`, the gateway accepts and counts; this package imports
options and protocol, and sees the gateway only through the protocol class `ConnectionHost`.
"""
