"""Services between the gateway and the lake: the stream, the drain, reconciliation, past days.

Faces, money and `defs` import the services from here. The modules import `gateway`, `lake`,
`settings`, `outage_log`, `errors` and `domain`, and never Dagster. To change something here, open:

- `broker_view`: whose published holdings are current, so that a drain may value them
  (`unavailable_reason`, `unconfirmed`)
- `confirmations`: when a row was confirmed and how old its price is; STALE (`STALE_AFTER`)
- `drain`: what becomes of a claimed request (`plan_batch`), how many are claimed (`batch_limit`,
  unless `batch_size` of `settings` is a number); for how long a drain begins batches: in a tick
  `broker_view` (`DRAIN_TIME_LIMIT_S`, which both spans there contain), else half a lease
  (`QueueWorker._run`)
- `exchange_days`: trading days and closes of an exchange; holidays and early closes of New York:
  `new_york.txt` beside it
- `failed_requests`: which requests count as failed lately (`LOOK_BACK`)
- `past_days`: the holdings at the close of past days (`values_at_close`), and how old a row may be
  then (`VALUE_BACK_DAYS`)
- `reconciliation`: what is a difference, and of which type (`_differences`); whether a break would
  have been seen (`_is_compared`); all that becomes of one: `domain/reconciliation`
- `stream/`: everything that the owner of a login does
- `waits`: how the event loop waits until an event or a time, and ends tasks
"""
