"""Everything that knows ib_async: connections, the account feed, market data lines, translation.

`sync` may import any module of it but `ib_async_internals`; it imports `domain`, `settings`,
`errors` and `outage_log`, never `lake`, `sync` or Dagster. To change something here, open:

- `account_downloads`: the values of accounts, one after the other: requests, messages, the times of
  rows; how long each is awaited, and again when: `domain/account_state`
- `account_feed`: the list of positions (`POSITIONS_INTERVAL_S`), rows that are set aside, and what
  a list closes (`_end_list`)
- `codes`: what each code of IB means: which ones end a line (`ENDS_LINE`), when it is requested
  again (`RETRY_WAITS`, else `OTHER_RETRY_WAIT`), which mean that IB is lost (`OFFLINE`)
- `connection`: one connection: its watchdog (`SILENCE_S`), contract details, executions
- `holdings`: the book: when a portfolio row confirms (`put_portfolio`), when a value of PnLSingle
  counts (`Profit`, `FOLLOWED_S`), and what closes a holding (`close_absent`)
- `ib_async_internals`: each private symbol of ib_async
- `login`: client ids, the pace of messages (`MESSAGE_PACE`), longest wait for an answer, a list
  and the first message of a download (`TIMEOUT_S`)
- `market_data`: requests for lines; which kind of data: `settings` (`market_data_type`)
- `subscriptions`: PnLSingle of holdings, PnL and values of accounts: `PROFIT_SILENCE_S`, `TAGS`; a
  first wait without a value is `LINE_SILENCE_S` of `domain/line`
- `translate`: how a message becomes a holding, contract details or a quote
"""
