"""What a holding is worth: quotes, the price rule, the money, the trust in a line, ages; pure.

`sync` and `gateway` import from here; these modules import `domain` and the standard library only.
"""
