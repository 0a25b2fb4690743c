"""The stream: it owns a login, values active legs by market data lines, and queues the others.

A line serves each holding of its contract, in a strategy or not. What has none is queued.

Runs import `streamer.stream`, the stream with its lease; library users import
`streamer.IBPositionStreamer`. The modules may import `gateway`, `lake`, `settings`, `outage_log`,
`errors` and `domain`, and never `sync.drain`. To change something here, open:

- `broker_values`: which holdings PnLSingle follows (`_choose`, `largest` by the last value of each,
  `KEEPS_BY`) and how many (`STREAMED_PNL_SUBSCRIPTIONS`; of monitored ones `pnl_subscriptions` of
  `settings`; legs without a line have no bound), how often values are published (`PUBLISH_S`),
  legs without a line queued (`OVERFLOW_INTERVAL_S`), and holdings whose value moved
  (`MOVED_INTERVAL_S`); when accounts are downloaded
- `contracts`: contract details in memory: when they are asked for (`_is_to_fetch`), again after no
  answer (`DETAILS_AGAIN`), for new hours (`HOURS_AGAIN`); legs without a conid (`LOOK_UP`)
- `delivery`: who gets the rows, and when; `ACCOUNT_EVERY_S`
- `lines`: which lines are requested and cancelled now (`MIN_HOLD_S`, `LIMIT_WAIT`); who gets one:
  `domain/line_allocation`; when a refused one is requested again: `gateway/codes` (`RETRY_WAITS`)
- `ownership`: the lease of the login (`HEARTBEAT_S`), and work beside the steps (`WORK_AGAIN_S`);
  the length of the lease: `settings` (`session_lease_s`)
- `parts`: what an extension gives to a stream
- `position_changes`: changes of quantities, and when executions are asked for
  (`EXECUTION_LOOKS_S`)
- `pricing`: values what ticked; an error sets one holding aside (`VALUED_AGAIN_S`)
- `publisher`: what is written to `broker_positions`, how long a closed holding stays there
  (`CLOSED_PUBLISHED`), and which holdings are queued
- `router`: one step: publish, read the registry, choose lines, route, queue
- `routes`: the present route of each holding
- `streamer`: connects and reconnects (`RECONNECT`), a loss of IB (`LONG_LOSS_S`,
  `DATA_DESPITE_LOSS_S`), the end of a run (`ROTATE_AFTER_S`)
"""
