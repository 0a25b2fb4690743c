-- DuckDB macros over the files of position_updates (docs/follow.md).

-- The newest row of each holding among those that were committed by a moment.
CREATE OR REPLACE MACRO known_at(files, moment) AS TABLE
SELECT * FROM read_parquet(files, union_by_name = true)
WHERE coalesce(committed_at, "timestamp") <= moment
QUALIFY row_number() OVER (PARTITION BY account, conid ORDER BY coalesce(clock_resets, 0) DESC, "timestamp" DESC, update_id DESC) = 1;

-- The last row of each holding with a timestamp at or before a moment, also if it was committed later.
CREATE OR REPLACE MACRO true_at(files, moment) AS TABLE
SELECT * FROM read_parquet(files, union_by_name = true)
WHERE "timestamp" <= moment
QUALIFY row_number() OVER (PARTITION BY account, conid ORDER BY coalesce(clock_resets, 0) DESC, "timestamp" DESC, update_id DESC) = 1;
