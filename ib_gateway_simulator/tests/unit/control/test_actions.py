"""Actions by name: the JSON that the control port takes, and the same in scenario files."""

import inspect
import json

import pytest
import yaml

from ib_gateway_simulator import ActionError, BookError
from ib_gateway_simulator.control.actions import ACTIONS, check
from ib_gateway_simulator.control.faults import Faults
from ib_gateway_simulator.control.scenario import load_scenario


def entries(text):
    """Return the actions of a scenario as names and arguments."""
    return [(entry.pop("do"), entry) for entry in yaml.safe_load(text)]


UNKIND = entries("""
- {do: silence_line, conid: 1, reset: false}
- {do: contract_details, conid: 1, answered: false}
- {do: after_restore, lines: dead}
- {do: silence_account, account: DUSIM0001, notice: true}
- {do: connectivity, state: lost, answers: cached, login_code: 1100}
- {do: download_end, account: DUSIM0001, delay_s: null}
- {do: download_end, account: DUSIM0001, blank: true}
- {do: positions_end, delay_s: null, late_rows: 3}
- {do: say_delayed, said: false}
- {do: model_unit, conid: 1, unit: major}
- {do: model_computed, conid: 1, computed: true}
- {do: change_port, port: 4003}
- {do: hours, conid: null, hours: 0930-1600}
- {do: ticking, conid: 1, only: [size]}
- {do: ticking, conid: 1, only: null}
- {do: line_answer, conid: 1, code: 10999, ticking: true}
- {do: quote, conid: 1, bid: 1.0, ask: 1.1, mark: 0.0}
- {do: say, messages: [["61", "3"]], client_id: 1}
- {do: answer, request: reqPositions, answers: [], account: DUSIM0001}
- {do: holding, account: "", conid: -1, position: nan, symbol: ""}
""")
WRONG = entries("""
- {do: silence_line, wrong: conid}
- {do: silence_line, conid: 1, "on": true, wrong: "on"}
- {do: after_restore, lines: half, wrong: lines}
- {do: connectivity, state: lost, answers: some, wrong: answers}
- {do: download_end, account: DUSIM0001, delay_s: -1, wrong: delay_s}
- {do: positions_end, delay_s: soon, wrong: delay_s}
- {do: model_unit, conid: 1, unit: cents, wrong: unit}
- {do: hours, hours: 1600-0930, wrong: hours}
- {do: ticking, conid: 1, only: [bid], wrong: only.0}
- {do: account_pnl, account: DUSIM0001, answer: maybe, wrong: answer}
- {do: position_pnl, account: DUSIM0001, conid: 1, answer: maybe, wrong: answer}
- {do: position_pnl_limit, limit: -1, wrong: limit}
- {do: holding, account: DUSIM0001, conid: 1, wrong: position}
- {do: say, messages: [4x], wrong: messages.0}
- {do: say, messages: [[1]], wrong: messages.0}
""")


@pytest.mark.parametrize(("name", "given"), UNKIND)
def test_the_json_of_an_action_is_taken_as_it_is(name, given):
    arguments = check(name, given)
    assert {key: getattr(arguments, key) for key in given} == given


@pytest.mark.parametrize(("name", "given"), WRONG)
def test_a_wrong_argument_is_named(name, given):
    field = given["wrong"]
    with pytest.raises(ActionError) as refused:
        check(name, {key: value for key, value in given.items() if key != "wrong"})
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
