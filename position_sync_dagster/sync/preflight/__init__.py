"""The preflight: what should be looked at before the first start, and after something went wrong.

Each check returns findings and changes nothing. `local` needs this machine only; `gateway` connects
for a moment, unless a stream owns the login.
"""
