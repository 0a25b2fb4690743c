"""Actions by name: the JSON that the control port takes, and the same in scenario files."""

import inspect
import json
from typing import Any

import pytest

from ib_gateway_simulator import ActionError, BookError
from ib_gateway_simulator.control.actions import ACTIONS, check
from ib_gateway_simulator.control.faults import Faults
from ib_gateway_simulator.control.scenario import load_scenario

UNKIND: list[tuple[str, dict[str, Any]]] = [
    ("silence_line", {"conid": 1, "reset": False}),
    ("contract_details", {"conid": 1, "answered": False}),
    ("after_restore", {"lines": "dead"}),
    ("silence_account", {"account": "DUSIM0001", "notice": True}),
    ("connectivity", {"state": "lost", "answers": "cached", "login_code": 1100}),
    ("download_end", {"account": "DUSIM0001", "delay_s": None}),
    ("download_end", {"account": "DUSIM0001", "blank": True}),
    ("positions_end", {"delay_s": None, "late_rows": 3}),
    ("say_delayed", {"said": False}),
    ("model_unit", {"conid": 1, "unit": "major"}),
    ("model_computed", {"conid": 1, "computed": True}),
    ("change_port", {"port": 4003}),
    ("hours", {"conid": None, "hours": "0930-1600"}),
    ("ticking", {"conid": 1, "only": ["size"]}),
    ("ticking", {"conid": 1, "only": None}),
    ("line_answer", {"conid": 1, "code": 10999, "ticking": True}),
    ("quote", {"conid": 1, "bid": 1.0, "ask": 1.1, "mark": 0.0}),
    ("say", {"messages": [["61", "3"]], "client_id": 1}),
    ("answer", {"request": "reqPositions", "answers": [], "account": "DUSIM0001"}),
    ("holding", {"account": "", "conid": -1, "position": "nan", "symbol": ""}),
]
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("silence_line", {}, "conid"),
    ("silence_line", {"conid": 1, "on": True}, "on"),
    ("after_restore", {"lines": "half"}, "lines"),
    ("connectivity", {"state": "lost", "answers": "some"}, "answers"),
    ("download_end", {"account": "DUSIM0001", "delay_s": -1}, "delay_s"),
    ("positions_end", {"delay_s": "soon"}, "delay_s"),
    ("model_unit", {"conid": 1, "unit": "cents"}, "unit"),
    ("hours", {"hours": "1600-0930"}, "hours"),
    ("ticking", {"conid": 1, "only": ["bid"]}, "only.0"),
    ("account_pnl", {"account": "DUSIM0001", "answer": "maybe"}, "answer"),
    ("position_pnl", {"account": "DUSIM0001", "conid": 1, "answer": "maybe"}, "answer"),
    ("position_pnl_limit", {"limit": -1}, "limit"),
    ("holding", {"account": "DUSIM0001", "conid": 1}, "position"),
    ("say", {"messages": ["4x"]}, "messages.0"),
    ("say", {"messages": [[1]]}, "messages.0"),
]


@pytest.mark.parametrize(("name", "given"), UNKIND)
def test_the_json_of_an_action_is_taken_as_it_is(name, given):
    arguments = check(name, given)
    assert {key: getattr(arguments, key) for key in given} == given


@pytest.mark.parametrize(("name", "given", "field"), WRONG)
def test_a_wrong_argument_is_named(name, given, field):
    with pytest.raises(ActionError) as refused:
        check(name, given)
    assert refused.value.field.startswith(field)


def test_every_action_says_what_it_plays():
    silent = [n for n, a in ACTIONS.items() if not inspect.getdoc(getattr(Faults, a.method))]
    assert silent == []


def test_a_scenario_may_have_every_unkind_action(tmp_path):
    path = tmp_path / "scenario.yaml"
    lines = [{"at_s": at_s, "do": name, **given} for at_s, (name, given) in enumerate(UNKIND)]
    path.write_text(json.dumps(lines))  # JSON is YAML
    events = [(event.at_s, event.do, event.arguments) for event in load_scenario(path)]
    assert events == [(at_s, name, check(name, given)) for at_s, (name, given) in enumerate(UNKIND)]
    path.write_text("- {at_s: 0, do: after_restore, lines: half}\n")
    with pytest.raises(BookError, match=r"scenario\.yaml:1:"):
        load_scenario(path)
