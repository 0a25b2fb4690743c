"""Every private thing of ib_async that we touch, each with the reason why.

Written against ib_async 2.1.0. The other modules of `gateway` import from here, and use its public
interface besides: `IB`, its events, and the request methods of `IB.client`. Here only the codes of
`gateway` are imported.
"""
