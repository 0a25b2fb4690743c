"""What the core reads of a strategies file: the legs; it hands other sections on as written."""

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.strategies_file import StrategiesFile

FILE = """strategies:
  - strategy_id: ic-1
    limits: {whatever: 1}
    legs:
      - {conid: 7, symbol: SPY}
  - rule: hedges
    match: {phase: full}
accounts:
  - {account: U1, limits: {whatever: 1}}
"""


def test_sections_that_others_declare_are_handed_on_as_they_are_written(tmp_path):
    path = tmp_path / "strategies.yaml"
    path.write_text(FILE)

    file = StrategiesFile(path)

    assert [leg.conid for leg in file.legs(utc_now())] == [7]
    assert [strategy.limits for _, strategy in file.strategies] == [{"whatever": "1"}]
    assert file.rule_entries == [
        (("strategies", 1), {"rule": "hedges", "match": {"phase": "full"}})
    ]
    assert file.accounts == [{"account": "U1", "limits": {"whatever": "1"}}]
