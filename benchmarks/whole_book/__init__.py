"""The whole book with and without profit subscriptions (PnLSingle): ages, rows and cost."""

from benchmarks.whole_book.followed import computed, followed

TITLE = "The whole book: values and greeks of monitored holdings"

SECTIONS = {"followed": followed, "computed": computed}
