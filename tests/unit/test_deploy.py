"""What is delivered: the files of `deploy/` agree with their readers, a release with itself."""

import re
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from pydantic import SecretStr

from conftest import pytest_runtest_makereport
from hatch_build import addresses, with_absolute_links
from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import need_simulator
from position_sync_dagster.errors import MissingExtraError
from position_sync_dagster.processes import preflight
from position_sync_dagster.settings import PREFIX, Settings, load_settings
from tests import publish
from tests.release import ReleaseError, Steps, works

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
STREAM_JOB = "stream_positions"
NO_COMPOSE = "Docker Compose is not installed (apt install docker-compose)"


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def variables(name: str) -> dict[str, str]:
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", (DEPLOY / name).read_text(), flags=re.MULTILINE)
    return dict(lines)


def compose() -> list[str] | None:
    """Return the command of Docker Compose; None where there is none."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker"):
        answer = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if answer.returncode == 0:
            return ["docker", "compose"]

    return None


@pytest.mark.skipif(compose() is None, reason=NO_COMPOSE)
@pytest.mark.parametrize("name", ["compose.yaml", "host.yaml"])
def test_docker_compose_accepts_the_file(name, tmp_path):
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder)
    shutil.copy(folder / "host.env.example", folder / "host.env")
    words = [*(compose() or []), "-f", str(folder / name), "--profile", "gateway", "config"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert {"code", "daemon", "webserver"} <= set(services)
    assert ("ib-gateway" in services) == (name == "host.yaml")


@pytest.mark.parametrize("name", ["compose.yaml", "host.yaml", "programs.yaml"])
def test_each_open_port_is_one_of_this_machine_unless_it_is_asked_for(name):
    ports = [p for service in read(name)["services"].values() for p in service.get("ports", [])]
    local = "127.0.0.1:"
    assert [port for port in ports if not port.startswith(local)] == []


def test_each_program_may_do_little():
    for name, service in read("programs.yaml")["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    assert re.search(r"^USER [1-9]\d+$", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)


def test_the_gateway_of_the_profile_is_read_only_closed_and_knows_its_password_by_a_file():
    parts = read("host.yaml")["services"]["ib-gateway"]
    environment = parts["environment"]
    assert parts["profiles"] == ["gateway"]
    assert "env_file" not in parts, "the others' secrets are in theirs"
    assert environment["READ_ONLY_API"] == "yes"
    assert environment["TRADING_MODE"] == "${TRADING_MODE:-paper}"
    assert environment["TWS_PASSWORD_FILE"].removeprefix("/run/secrets/") in parts["secrets"]
    assert not {"TWS_PASSWORD", "VNC_SERVER_PASSWORD", "VNC_SERVER_PASSWORD_FILE"} & set(
        environment
    )
    assert "ports" not in parts
    assert parts["cap_drop"] == ["ALL"]
    assert parts["security_opt"] == ["no-new-privileges:true"]
    # The names that gnzsnz/ib-gateway-docker documents for this image.
    assert set(environment) == {
        *("TWS_USERID", "TWS_PASSWORD_FILE", "TRADING_MODE", "READ_ONLY_API"),
        *("TWOFA_TIMEOUT_ACTION", "RELOGIN_AFTER_TWOFA_TIMEOUT", "TWOFA_DEVICE"),
        *("TIME_ZONE", "TZ", "AUTO_RESTART_TIME", "TWS_COLD_RESTART"),
    }

    secret = read("host.yaml")["secrets"]["tws_password"]["file"]
    assert {f"/deploy/{secret}", ".env"} <= set((ROOT / ".gitignore").read_text().split())


@pytest.mark.parametrize("name", ["compose.yaml", "programs.yaml"])
def test_each_container_has_bounds_of_memory_and_logs_and_a_health_check_of_its_own(name):
    """Of the image's own check, which asks a code server, each other program failed for ever."""
    for service, parts in read(name)["services"].items():
        if "extends" not in parts:
            assert parts["mem_limit"], service
            assert {"max-size", "max-file"} <= set(parts["logging"]["options"]), service
            assert parts["healthcheck"]["test"][0].startswith("CMD"), service
    assert "HEALTHCHECK" not in (DEPLOY / "Dockerfile").read_text()


VALUES = "helm/values.yaml"
POLICY = "helm/network-policy.yaml"


def pods() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return what the values say of the code server, the daemon and the webserver."""
    values = read(VALUES)
    [code] = values["dagster-user-deployments"]["deployments"]
    return code, values["dagsterDaemon"], values["dagsterWebserver"]


def test_each_pod_of_the_helm_values_may_write_its_volumes_alone_and_moves_soon():
    code, daemon, webserver = pods()
    for part in (code, daemon, webserver):
        account, container = part["podSecurityContext"], part["securityContext"]
        assert account["runAsNonRoot"] is True
        assert account["seccompProfile"]["type"] == "RuntimeDefault"
        assert "sysctls" not in account
        assert container["readOnlyRootFilesystem"] is True
        assert container["allowPrivilegeEscalation"] is False
        assert part["resources"]["limits"]["memory"]
        volumes = {volume["name"] for volume in part["volumes"]}
        assert volumes == {mount["name"] for mount in part["volumeMounts"]}

    for part in (code, daemon):
        assert all(toleration["tolerationSeconds"] >= 30 for toleration in part["tolerations"])
        assert part["livenessProbe"]["periodSeconds"]
    assert daemon["livenessProbe"]["exec"]["command"][0] == "dagster-daemon"
    assert webserver["service"]["port"] == 8080


MANIFESTS = "kubernetes/position-sync.yaml"


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / MANIFESTS).read_text()))


def test_the_plain_manifests_start_the_programs_of_the_compose_file_at_the_loopback_of_one_pod():
    stateful, gateway, service, policy = manifests()
    assert stateful["spec"]["replicas"] == 1
    pod = stateful["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    services = read("programs.yaml")["services"]
    claims = {each["metadata"]["name"] for each in stateful["spec"]["volumeClaimTemplates"]}
    volumes = claims | {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        command = " ".join(services[container["name"]]["command"])
        assert " ".join(container["args"]) == re.sub(r"--host \S+", "--host 127.0.0.1", command)
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["livenessProbe"]["exec"]["command"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert "ports" not in container
        assert container["image"].endswith(f":{PROJECT['version']}")

    ports = {port["port"] for port in service["spec"]["ports"]}
    [ingress] = policy["spec"]["ingress"]
    assert {port["port"] for port in ingress["ports"]} == ports == {4003, 4004}
    labels = gateway["spec"]["template"]["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"]
    [sender] = ingress["from"]
    assert sender["podSelector"]["matchLabels"] == stateful["spec"]["selector"]["matchLabels"]


def test_the_gateway_of_the_manifests_is_that_of_the_compose_file():
    _stateful, gateway, *_others = manifests()
    [container] = gateway["spec"]["template"]["spec"]["containers"]
    in_compose = read("host.yaml")["services"]["ib-gateway"]
    assert container["image"] in in_compose["image"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert environment.keys() <= in_compose["environment"].keys()
    assert environment["READ_ONLY_API"] == "yes"
    assert environment["TRADING_MODE"] == "paper"
    assert environment["TWS_USERID"] is None, "it is in a secret"
    assert container["readinessProbe"]["exec"]["command"] == in_compose["healthcheck"]["test"][1:]
    assert gateway["spec"]["strategy"] == {"type": "Recreate"}


def test_the_database_of_the_profile_has_the_names_of_the_settings_and_no_password_of_ours():
    parts = read("host.yaml")["services"]["postgres"]
    assert parts["profiles"] == ["postgres"]
    assert "ports" not in parts
    assert "env_file" not in parts
    assert parts["environment"] == {
        "POSTGRES_USER": "${PGUSER:-dagster}",
        "POSTGRES_DB": "${PGDATABASE:-dagster}",
        "POSTGRES_PASSWORD": "${PGPASSWORD:-}",
    }
    assert parts["image"] == read("compose.yaml")["services"]["postgres"]["image"]


def test_only_daemon_and_webserver_reach_the_port_of_the_code_server():
    code, *_others = pods()
    policy = read(POLICY)
    assert policy["apiVersion"] == "networking.k8s.io/v1"
    assert policy["kind"] == "NetworkPolicy"
    chosen = policy["spec"]["podSelector"]["matchLabels"]
    release = chosen["app.kubernetes.io/instance"]
    assert f"--install {release} dagster/dagster" in (DEPLOY / VALUES).read_text()
    assert chosen["component"] == "user-deployments"
    assert chosen["deployment"] == code["name"]

    [ingress] = policy["spec"]["ingress"]
    [port] = ingress["ports"]
    assert port["port"] == code["port"]
    [peer] = ingress["from"]
    sender = peer["podSelector"]
    assert sender["matchLabels"] == {"app.kubernetes.io/instance": release}
    [component] = sender["matchExpressions"]
    assert component["values"] == ["dagster-daemon", "dagster-webserver"]


@pytest.mark.extra
def test_each_part_of_the_helm_files_is_what_kubernetes_reads():
    """Its own models raise for an unknown name or type. They are compiled for eight seconds."""
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
    from kubernetes import client

    def assert_known(of: type[Any], *parts: Any) -> None:
        for said in parts:
            k8s_model_from_dict(of, k8s_snake_case_dict(of, said))

    assert_known(client.V1NetworkPolicy, read(POLICY))
    kinds = (client.V1StatefulSet, client.V1Deployment, client.V1Service, client.V1NetworkPolicy)
    for of, said in zip(kinds, manifests(), strict=True):
        assert of.__name__ == f"V1{said['kind']}"
        assert_known(of, said)
    for part in pods():
        assert_known(client.V1PodSecurityContext, part["podSecurityContext"])
        assert_known(client.V1SecurityContext, part["securityContext"])
        assert_known(client.V1ResourceRequirements, part["resources"])
        assert_known(client.V1Volume, *part["volumes"])
        assert_known(client.V1VolumeMount, *part["volumeMounts"])
        assert_known(client.V1Toleration, *part.get("tolerations", ()))
        assert_known(client.V1Probe, *filter(None, [part.get("livenessProbe")]))


# The accounts of each Debian image (base-passwd, apt), which `useradd` refuses to make again.
DEBIAN = """root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc
_apt nobody"""


def test_the_image_makes_an_account_that_debian_does_not_have():
    match = re.search(r"useradd [^\n]* (\S+) \\\n", (DEPLOY / "Dockerfile").read_text())
    assert match
    assert match[1] not in DEBIAN.split()


def test_an_install_of_a_checkout_sends_alerts_as_the_image_does():
    """The first hour of a deployment sets a receiver of alerts in each way."""
    image = re.findall(r"--extra (\w+)", (DEPLOY / "Dockerfile").read_text())
    install = (ROOT / "Makefile").read_text().partition("$(RUNNABLE): ")[2]
    of_install = re.findall(r"--extra (\w+)", install.partition("\n\n")[0])
    assert {*of_install, "postgres"} == set(image)


def test_what_the_image_copies_is_sent_to_its_build():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    own = [words for words in copied if not any(word.startswith("--from") for word in words)]
    sources = [word for words in own for word in words if not word.startswith("--")]
    sent = {f.removeprefix("!") for f in (ROOT / ".dockerignore").read_text().split()}
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert {source, source.split("/")[0]} & sent, source


def test_the_helm_values_name_the_instance_of_the_release_that_they_are_installed_as():
    """The chart makes it from both names; else the code server would wait for another ConfigMap."""
    text = (DEPLOY / "helm" / "values.yaml").read_text()
    release = re.search(r"helm upgrade --install (\S+) dagster/dagster ", text)
    assert release
    values = read("helm/values.yaml")
    assert values["global"]["dagsterInstanceConfigMap"] == f"{release[1]}-dagster-instance"
    assert values["dagster-user-deployments"]["includeInstance"] is True


@pytest.mark.parametrize("name", ["demo.env", "host.env.example"])
def test_each_setting_of_an_environment_file_exists(name):
    named = {key.removeprefix(PREFIX) for key in variables(name) if key.startswith(PREFIX)}
    assert named
    assert named - {field.upper() for field in Settings.model_fields} == set()


def test_the_example_holds_no_secret():
    secret = {
        k: v for k, v in variables("host.env.example").items() if "PASSWORD" in k or "KEY" in k
    }
    assert secret
    assert set(secret.values()) == {""}


def test_the_demo_names_a_file_of_the_package():
    path = variables("demo.env")[f"{PREFIX}STRATEGIES_FILE"]
    assert (ROOT / path.partition("/site-packages/")[2]).is_file()


def test_each_program_is_there():
    for service in read("programs.yaml")["services"].values():
        words = service["command"]
        modules = [after for word, after in pairwise(words) if word == "-m"]
        assert all(find_spec(module) for module in modules)
        scripts = Path(sys.executable).parent
        assert words[0] == "python" or (scripts / words[0]).exists()


def test_the_instance_is_that_of_one_machine_on_postgres_and_has_no_class_of_ours():
    on_one_machine = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    deployed = read("dagster.yaml")
    assert deployed.pop("storage")["postgres"]["postgres_url"] == "postgresql+psycopg2://"
    assert deployed == on_one_machine
    named = [
        part["module"]
        for part in on_one_machine.values()
        if isinstance(part, dict) and "module" in part
    ]
    assert named
    assert all(module.startswith("dagster.") for module in named)


def test_the_helm_values_say_what_the_instance_says():
    values = read("helm/values.yaml")
    instance = read("dagster.yaml")
    daemon = values["dagsterDaemon"]
    coordinator = instance["run_coordinator"]
    assert daemon["runCoordinator"]["type"] == coordinator["class"]
    queued = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert queued["maxConcurrentRuns"] == coordinator["config"]["max_concurrent_runs"]
    assert queued["dequeueIntervalSeconds"] == coordinator["config"]["dequeue_interval_seconds"]
    assert values["additionalInstanceConfig"]["nux"] == instance["nux"]
    assert values["telemetry"] == instance["telemetry"]
    logs = instance["python_logs"]["managed_python_loggers"]
    assert values["pythonLogs"]["managedPythonLoggers"] == logs

    for kind in ("sensor", "schedule"):
        purge_after_days = instance["retention"][kind]["purge_after_days"]
        assert values["retention"][kind]["purgeAfterDays"] == purge_after_days
    assert daemon["sensors"]["useThreads"] == instance["sensors"]["use_threads"]
    assert values["runLauncher"]["type"] == "K8sRunLauncher"
    pods = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]["podSpecConfig"]
    [spread] = pods["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == {"dagster/job": STREAM_JOB}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_of_the_project_heads_the_changelog_and_tags_the_image():
    text = (ROOT / "CHANGELOG.md").read_text()
    unreleased, newest = re.findall(r"^## \[(.*?)\](.*)$", text, re.MULTILINE)[:2]
    assert unreleased == ("Unreleased", "")
    assert newest[0] == PROJECT["version"]
    assert re.fullmatch(r" – \d{4}-\d\d-\d\d", newest[1])
    values = (ROOT / "deploy/helm/values.yaml").read_text()
    assert re.findall(r"^ +tag: \"(.+)\"$", values, re.MULTILINE) == [PROJECT["version"]]


def test_a_release_writes_a_greater_version_and_heads_what_is_unreleased():
    project = 'name = "x"\nversion = "0.1.0"\n'
    assert 'version = "0.2.0"' in publish.with_version(project, "0.2.0")
    for wrong in ("0.1.0", "0.0.9", "next", ""):
        with pytest.raises(ReleaseError):
            publish.with_version(project, wrong)

    before = "# Changelog\n\n## [Unreleased]\n\n- news\n\n## [0.1.0] – 2026-01-02\n"
    after = publish.with_heading(before, "0.2.0", date(2026, 3, 4))
    assert "## [Unreleased]\n\n## [0.2.0] – 2026-03-04\n\n- news" in after
    with pytest.raises(ReleaseError):
        publish.with_heading(before.replace("- news", ""), "0.2.0", date(2026, 3, 4))


def test_a_launcher_of_a_python_that_is_not_there_is_passed_over_without_a_word(tmp_path, capfd):
    launcher = tmp_path / "python3.12"
    launcher.write_text("#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n")
    launcher.chmod(0o700)
    assert not works(str(launcher))
    assert works(sys.executable)
    assert capfd.readouterr() == ("", "")


def test_a_step_of_the_check_that_fails_is_named_and_the_next_one_is_done(capsys):
    def failing(what: str) -> None:
        raise ReleaseError(f"the wheel lacks {what}")

    steps = Steps()
    assert steps.run("Building", failing, "LICENSE") is None
    assert steps.run("Installing", Path, "bin") == Path("bin")
    assert steps.failed == ["Building"]
    assert "the wheel lacks LICENSE" in capsys.readouterr().out


def test_the_simulator_alone_has_the_bounds_of_the_project_and_a_version_of_its_own():
    alone = tomllib.loads((ROOT / "ib_gateway_simulator/pyproject.toml").read_text())["project"]
    for name in ("requires-python", "license"):
        assert alone[name] == PROJECT[name]
    asked = Requirement(PROJECT["optional-dependencies"]["demo"][0])
    assert asked.name == alone["name"]
    assert asked.specifier.contains(alone["version"]), "it is released first"
    changes = (ROOT / "ib_gateway_simulator/CHANGELOG.md").read_text()
    assert re.findall(r"^## (\d\S*)$", changes, re.MULTILINE)[0] == alone["version"]
    assert set(alone["dependencies"]) <= set(PROJECT["dependencies"])


def test_package_and_simulator_own_no_file_and_no_command_in_common():
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert hatch["only-include"] == ["position_sync_dagster"]
    assert list(PROJECT["scripts"]) == ["position-sync"]


def test_what_needs_an_extra_is_not_installed_without_it():
    needed = {Requirement(dependency).name for dependency in PROJECT["dependencies"]}
    assert needed.isdisjoint({"dagster-webserver", "ib-gateway-simulator"})


def test_links_of_the_readme_are_absolute_where_a_repository_is_named():
    readme = (ROOT / "README.md").read_text()
    assert with_absolute_links(readme, None) == readme
    absolute = with_absolute_links(readme, "https://code.example/us/")
    assert "](https://code.example/us/blob/main/docs/tables.md)" in absolute
    assert "![The money page](https://code.example/us/raw/main/docs/" in absolute
    assert re.findall(r"\]\((?!https?://)[^)]*\)", absolute) == []
    assert addresses("https://code.example/us")["Issues"] == "https://code.example/us/issues"
    assert addresses(None)["Homepage"].startswith("https://pypi.org/")


def test_actions_are_pinned_by_digest():
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        used = re.findall(r"uses: (\S+)", workflow.read_text())
        assert [action for action in used if not re.search(r"@[0-9a-f]{40}$", action)] == []


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [("no Chromium here: `apt install chromium`", "failed"), ("no Docker here", "skipped")],
)
def test_in_ci_a_missing_program_fails_a_test(monkeypatch, reason, outcome):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    report = Mock(skipped=True, longrepr=("file", 1, f"Skipped: {reason}"), outcome="skipped")
    hook = pytest_runtest_makereport(Mock(), Mock())
    next(hook)
    with pytest.raises(StopIteration):
        hook.send(report)
    assert report.outcome == outcome


def test_commands_without_the_simulator_or_the_webserver_name_their_extras(monkeypatch, refuse):
    without = typer.Typer()
    need_simulator(without, "demo", "record")
    for command in without.registered_commands:
        with pytest.raises(MissingExtraError, match=r"position-sync-dagster\[demo\]"):
            command.callback()

    monkeypatch.setattr(options, "find_spec", lambda _module: None)
    _code, said = refuse("dev")
    assert "pip install 'position-sync-dagster[webserver]'" in said


def test_an_extra_that_is_not_installed_is_named_where_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    url = SecretStr("json://127.0.0.1:1")
    alerts = "pip install 'position-sync-dagster[alerts]'"
    with pytest.raises(MissingExtraError, match=re.escape(f"Run: {alerts}")):
        preflight.check_alerts(load_settings(alert_urls=(url,)))
    assert {"alerts", "mcp"} <= set(PROJECT["optional-dependencies"])


def test_everything_of_the_extras_is_installed_for_the_tests():
    development = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    extras = ",".join(sorted(PROJECT["optional-dependencies"]))
    assert f"position-sync-dagster[{extras}]" in development
