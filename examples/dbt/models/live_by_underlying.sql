-- The same of now, from the newest row of each holding.
select
    account, symbol, currency, max("timestamp") as newest,
    count(*) as legs,
    case when count(market_value) = count(*) then round(sum(market_value), 2) end as market_value
from {{ source('lake', 'latest_positions') }}
where position <> 0
group by all
