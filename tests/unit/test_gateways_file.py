"""The gateways file: what it may say, and that each mistake is named by its place."""

from pathlib import Path

import pytest

from position_sync_dagster.errors import GatewaysFileError, SettingsError
from position_sync_dagster.settings import Settings, load_gateways, load_settings
from position_sync_dagster.yaml_file import saved_state
from tests.support.settings import make_settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "gateways.yaml"

TWO = """\
gateways:
  - {name: main, port: 4001, accounts: [U1, U2]}
  - name: second
    host: 192.168.1.20
    port: 4001
    client_id: 40
    client_ids: 2
    max_lines: 200
    reserved_lines: 20
    trading_mode: LIVE
    accounts: [U3]
"""


def logins(tmp_path: Path, text: str, **more: object) -> tuple[Settings, ...]:
    (tmp_path / "g.yaml").write_text(text)
    return make_settings(gateways_file=tmp_path / "g.yaml", **more).logins


def test_each_login_has_its_own_settings_and_the_rest_of_all(tmp_path: Path) -> None:
    main, second = logins(tmp_path, TWO, max_lines=90, gateway_host="10.0.0.1", batch_size=7)
    assert [one.gateway_id for one in (main, second)] == ["main", "second"]
    assert [one.gateway_address for one in (main, second)] == ["10.0.0.1:4001", "192.168.1.20:4001"]
    assert [one.accounts for one in (main, second)] == [("U1", "U2"), ("U3",)]
    assert main.max_lines == 90
    assert main.reserved_lines == 5
    assert main.trading_mode is None

    assert second.max_lines == 200
    assert second.reserved_lines == 20
    assert second.trading_mode == "LIVE"
    assert second.client_id_pool == (40, 41)
    assert main.client_id_pool == (17, 18, 19, 20)
    assert main.batch_size == 7
    assert second.batch_size == 7
    assert second.logins == (main, second)
    assert main.for_login("second") == second


def test_without_a_file_there_is_one_login_named_by_its_address() -> None:
    settings = load_settings(gateway_port=4002)
    assert settings.logins == (settings,)
    assert settings.gateway_id == "127.0.0.1:4002"
    assert settings.gateway_address == "127.0.0.1:4002"
    assert settings.for_login(None) is settings
    with pytest.raises(SettingsError, match="no login 'main'"):
        settings.for_login("main")


def test_with_a_file_a_login_must_be_chosen_and_must_be_there(tmp_path: Path) -> None:
    settings = logins(tmp_path, TWO)[0]
    whole = Settings(_env_file=None, gateways_file=tmp_path / "g.yaml")
    with pytest.raises(SettingsError, match="none of them was chosen"):
        _ = whole.gateway_id
    for name in (None, "third"):
        with pytest.raises(SettingsError, match="Choose one of the logins: main, second"):
            settings.for_login(name)


def test_an_edit_of_the_file_counts_at_once_and_changes_only_its_login(tmp_path: Path) -> None:
    main, second = logins(tmp_path, TWO)
    (tmp_path / "g.yaml").write_text(TWO.replace("max_lines: 200", "max_lines: 150"))
    assert main in second.logins
    assert second not in main.logins
    (tmp_path / "g.yaml").unlink()
    with pytest.raises(GatewaysFileError, match="no such file"):
        _ = main.logins


A = "gateways:\n- {port: 4001, accounts: [U1], name: "
ONE = A + "a}\n- {accounts: [U2], name: "
TAGGED = "gateways:\n- name: a\n  port: 4001\n  accounts: [U1]\n  tags: "


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        ("", None, "it is empty"),
        ("gateways: []", 1, "gateways \\[\\] cannot be used"),
        ("gateways: {}", 1, "must be a list"),
        ("gateways:\n- {name: a, port: 4001}", 2, "'accounts' is missing"),
        ("gateways:\n- {name: a, accounts: [U1]}", 2, "'port' is missing"),
        ("gateways:\n- {port: 4001, accounts: [U1]}", 2, "'name' is missing"),
        ("gateways:\n- {name: a, port: 4001, accounts: [U1, U1]}", 2, "U1 belongs to two"),
        ("gateways:\n- {name: a, port: 4001, accounts: []}", 2, "accounts \\[\\] cannot be used"),
        ("gateways:\n- {name: a, port: 4001, accounts: [U 1]}", 2, "'U 1' cannot"),
        ("gateways:\n- {name: a, accounts: [U1], port: 0}", 2, "port '0'"),
        ("gateways:\n- {name: a, accounts: [U1], port: 65536}", 2, "port '65536'"),
        (ONE + "b, port: 2, x: 1}", 3, "'x' is not known"),
        (ONE + "a, port: 4002}", 3, "name 'a' belongs to two gateways .*line 2"),
        (ONE + "b, port: 4001}", 3, "4001 belongs to two"),
        (ONE + "b, host: LocalHost, port: 4001}", 3, "4001 belongs to two gateways .'a' in line 2"),
        (A + "a}\n- {name: b, port: 4002, accounts: [U2, U1]}", 3, "U1 belongs to two"),
        (A + "a, trading_mode: live}", 2, "'live' cannot be used"),
        (A + "a, client_id: 0}", 2, "client_id '0'"),
        (A + "a, max_lines: 5}", 2, "5 reserved lines leave none of 5"),
        (A + "a b}", 2, "'a b' cannot be used"),
        (A + "a...b}", 2, "cannot be used"),
        (A + "a" * 65 + "}", 2, "cannot be"),
        (A + "a, host: 'x y'}", 2, "'x y' cannot"),
        (TAGGED + "[x]", 5, "tags .*cannot be used"),
        (TAGGED + "{a: }", 5, "tags.a has no value"),
        (TAGGED + "{a: b, a: c}", 5, "'a' is there twice"),
        (TAGGED + "{a b: c}", 5, "'a b' cannot be used"),
        (TAGGED + "{dagster/partition: b}", 5, "'dagster/partition' cannot"),
        (A + "a, flex_token: t}", 2, "flex_token is there without flex_query_id"),
    ],
)
def test_a_mistake_is_named_by_its_place_with_a_remedy(tmp_path, text, line, cause) -> None:
    place = f"line {line}" if line else ""
    file = tmp_path / "g.yaml"
    file.write_text(text)
    with pytest.raises(GatewaysFileError, match=f"g.yaml.*{place}.*{cause}") as caught:
        load_gateways(file, load_settings(), saved_state(file))
    assert caught.value.remedy
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", ["[kept]", "{kept: 1}", "kept" * 70])
def test_a_token_that_cannot_be_used_is_not_repeated(tmp_path: Path, value: str) -> None:
    with pytest.raises(GatewaysFileError, match=r"line 2.*flex_token cannot be used") as caught:
        logins(tmp_path, A + "a, flex_query_id: 1, flex_token: " + value + "}")
    assert "kept" not in str(caught.value)


def test_a_changed_tag_is_a_changed_login(tmp_path: Path) -> None:
    (login,) = logins(tmp_path, TAGGED + "{team: options}\n")
    assert login.run_tags == {"team": "options"}
    (tmp_path / "g.yaml").write_text(TAGGED + "{team: futures}\n")
    assert login not in login.logins
    assert load_settings().run_tags == {}


def test_the_example_can_be_read() -> None:
    examples = load_gateways(EXAMPLE, load_settings(), saved_state(EXAMPLE))
    assert [login.gateway_id for login in examples] == ["main", "second"]
