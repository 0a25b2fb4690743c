"""The signals that the tests' child processes answer to."""

import signal


def unignore() -> None:
    """Make child processes answer to signals that this process was started to ignore.

    A program inherits ignored signals (SIGHUP from `nohup`, SIGINT in a background job of a
    script) and would pass them on to each process that a test starts. It does not pass handlers
    on. With a handler that does nothing, this process still ignores the signal, and its children
    start with the default.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
