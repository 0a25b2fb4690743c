"""The broker's statements: Flex query results as XML files, and the service that makes them.

`ib_async.FlexReport` is not used: its download has no time limit, takes the answer "in progress"
of version 3 of the service for a statement, and has the token in the errors of its URL. These
modules import the domain, `errors` and the standard library.
"""
