"""The gateways file: what it may say, and that each mistake is named by its place."""

from pathlib import Path

import pytest

from position_sync_dagster.errors import GatewaysFileError, SettingsError
from position_sync_dagster.settings import Settings, load_gateways, load_settings
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
    assert (main.max_lines, main.reserved_lines, main.trading_mode) == (90, 5, None)
    assert (second.max_lines, second.reserved_lines, second.trading_mode) == (200, 20, "LIVE")
    assert second.client_id_pool == (40, 41)
    assert main.client_id_pool == (17, 18, 19, 20)
    assert main.batch_size == second.batch_size == 7
    assert second.logins == (main, second)
    assert main.for_login("second") == second


def test_without_a_file_there_is_one_login_named_by_its_address() -> None:
    settings = load_settings(gateway_port=4002)
    assert settings.logins == (settings,)
    assert settings.gateway_id == settings.gateway_address == "127.0.0.1:4002"
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


ONE = "gateways:\n- {name: a, port: 4001, accounts: [U1]}\n"
TAGGED = "gateways:\n- name: a\n  port: 4001\n  accounts: [U1]\n"
NAMED = "name: a, port: 4001"

WHOLE_FILES = [
    ("", "", "it is empty"),
    ("gateways: []", "line 1", r"gateways \[\] cannot be used"),
    ("gateways: {}", "line 1", "must be a list"),
]
FIRST_LOGINS = [
    (NAMED, "'accounts' is missing"),
    ("name: a, accounts: [U1]", "'port' is missing"),
    ("port: 4001, accounts: [U1]", "'name' is missing"),
    (f"{NAMED}, accounts: [U1, U1]", "U1 belongs to two"),
    (f"{NAMED}, accounts: []", r"accounts \[\] cannot be used"),
    (f"{NAMED}, accounts: [U 1]", "'U 1' cannot"),
    (f"{NAMED}, accounts: [U1], trading_mode: live", "'live' cannot be used"),
    ("name: a, accounts: [U1], port: 0", "port '0'"),
    ("name: a, accounts: [U1], port: 65536", "port '65536'"),
    (f"{NAMED}, accounts: [U1], client_id: 0", "client_id '0'"),
    (f"{NAMED}, accounts: [U1], max_lines: 5", "5 reserved lines leave none of 5"),
    (f"{NAMED}, accounts: [U1], host: 'x y'", "'x y' cannot"),
    ("name: a b, port: 1, accounts: [U1]", "'a b' cannot be used"),
    ("name: a...b, port: 1, accounts: [U1]", "cannot be used"),
    (f"name: {'a' * 65}, port: 1, accounts: [U1]", "cannot be used"),
]
SECOND_LOGINS = [
    ("name: b, port: 2, accounts: [U2], x: 1", "'x' is not known"),
    ("name: a, port: 2, accounts: [U2]", "name 'a' belongs to two gateways .*line 2"),
    ("name: b, port: 4001, accounts: [U2]", "4001 belongs to two"),
    ("name: b, host: LocalHost, port: 4001, accounts: [U2]", "4001 .* two gateways .'a' in line 2"),
    ("name: b, port: 2, accounts: [U2, U1]", "U1 belongs to two"),
]
TAGS = [
    ("[x]", "tags .*cannot be used"),
    ("{a: }", "tags.a has no value"),
    ("{a: b, a: c}", "'a' is there twice"),
    ("{a b: c}", "'a b' cannot be used"),
    ("{dagster/partition: b}", "'dagster/partition' cannot"),
]


@pytest.mark.parametrize(
    ("text", "place", "cause"),
    [
        *WHOLE_FILES,
        *((f"gateways:\n- {{{text}}}", "line 2", cause) for text, cause in FIRST_LOGINS),
        *((f"{ONE}- {{{text}}}", "line 3", cause) for text, cause in SECOND_LOGINS),
        *((f"{TAGGED}  tags: {text}\n", "line 5", cause) for text, cause in TAGS),
    ],
)
def test_a_mistake_is_named_by_its_place_with_a_remedy(
    tmp_path: Path, text: str, place: str, cause: str
) -> None:
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(GatewaysFileError, match=f"g.yaml.*{place}.*{cause}") as caught:
        load_gateways(tmp_path / "g.yaml", load_settings())
    assert caught.value.remedy
    assert len(str(caught.value)) < 600


def test_a_changed_tag_is_a_changed_login(tmp_path: Path) -> None:
    (login,) = logins(tmp_path, TAGGED + "  tags: {team: options}\n")
    assert login.run_tags == {"team": "options"}
    (tmp_path / "g.yaml").write_text(TAGGED + "  tags: {team: futures}\n")
    assert login not in login.logins
    assert load_settings().run_tags == {}


def test_the_example_can_be_read() -> None:
    assert [login.name for login in load_gateways(EXAMPLE, load_settings())] == ["main", "second"]
