-- What each account held of each underlying at each close. A sum of which a part is unknown is null.
select
    session_date, account, symbol, currency,
    count(*) as legs,
    case when count(market_value) = count(*) then round(sum(market_value), 2) end as market_value
from {{ source('lake', 'daily_positions') }}
where position <> 0
group by all
