"""The whole book with and without profit subscriptions (PnLSingle): ages, rows and cost."""

from benchmarks.whole_book.followed import followed

TITLE = "The whole book: values of monitored holdings"

SECTIONS = {"followed": followed}
