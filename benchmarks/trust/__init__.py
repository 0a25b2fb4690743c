"""What a trader reads while the gateway is unkind: value, kind and age, case by case.

`TREE=/another/checkout make bench PART=trust` plays the same cases to the stream of that checkout.
"""

from benchmarks.trust.cases import cases

TITLE = "Values that can be trusted"

SECTIONS = {"cases": cases}
