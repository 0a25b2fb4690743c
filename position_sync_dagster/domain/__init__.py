"""Frozen values and pure decisions: prices, routes, lines, retries, reconciliation.

Every other package may import any module of it; it imports the standard library and `errors` only.
To change something here, open:

- `account_state`: an account's lists and downloads: for how long each is awaited
  (`ACCOUNT_QUIET_S`, `LONGEST_TIMEOUTS`, `LATE_END`), when it is silent (`SILENT_INTERVALS` of
  `ACCOUNT_INTERVAL_S`), is requested again (`ACCOUNT_AGAIN`) or emptied (`SECOND_LIST_S`), COMPLETE
- `account_values`: the columns of `account_values`, and what a new row is due for (`content`)
- `clock`: what a clock that was set back means; how far two clocks may differ (`SKEW`)
- `contract_match`: which contract a described leg means, and when a leg is a mismatch
- `exchange_time`: names of time zones, trading hours of a contract; trading days of an exchange:
  `sync/exchange_days`
- `execution`, `position_change`: the columns of `executions` and `position_changes`
- `gateway_session`: states and columns of a session, whether it is alive (`is_alive`), the login of
  the week; the length of a lease: `settings` (`session_lease_s`)
- `holding`: a holding as the broker reports it and its times; when a followed value has moved far
  enough for a row (`has_moved`)
- `instrument`: contract details (`ContractDetails`; `gateway/translate` reads them in `details_of`,
  `CONTRACTS` of `lake/schema` stores them); how conids, rights and days are read, contracts named
- `leg`: legs, and the route of a holding: STREAMED, OVERFLOW, MONITORED, CLOSED (`route`)
- `line`: one market data line: `LINE_SILENCE_S`, `RENEWAL`, `FIRST_TICK_GRACE_S`; the wait after a
  refusal, by its code: `gateway/codes` (`RETRY_WAITS`)
- `line_allocation`: who gets a line (`rank`), the share of underlyings (`most_underlyings`), the
  limit learned from code 101 (`LineLimit`); which holdings PnLSingle follows:
  `sync/stream/broker_values`
- `login_lines`: the set of the lines: which are requested, renewed (`RENEWALS_AT_ONCE`), denied
- `position_update`: the columns of the ledger, and what a handler of rows is
- `queue_request`: the columns, priorities and lease of a request (`LEASE_S`), and the number and
  delays of its attempts (`RetryPolicy`); all that becomes of one: `lake/queue_transitions`;
  finished ones are kept for good
- `quote`: which parts of the newest market data count (`Quote.counted`, `MODEL_SILENCE`)
- `reconciliation`: the columns of breaks; when one begins, has the state CONFIRMED and ends
  (`after_comparison`), what ends an acceptance; how long a result names a difference as
  unconfirmed, whatever that state (`CONFIRM_AFTER`); what is a difference, and which breaks were
  looked for: `sync/reconciliation`
- `retry`: delays that double (`Backoff`), pauses between commits (`rest_s`)
- `streamed_holding`: when a row of a streamed holding is due (`ROW_INTERVAL_S`), and when its line
  is doubted because the broker's value differs (`SETTLE_S`, `allowed_difference`), by more than 3 %
  (`VALUE_BAND`, which also judges PnLSingle and a check)
- `valuation`: which price values a leg (`price_of`), the row, what is news in it (`VALUES`)
"""
