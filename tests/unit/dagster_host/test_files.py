"""The files of `deploy/` agree with each other, with the package and with what reads them."""

import re
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
import yaml

from position_sync_dagster.run_slots import STREAM_JOB
from position_sync_dagster.settings import PREFIX, Settings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
DAEMON = "position_sync_dagster.dagster_host.standby_daemon"
NO_COMPOSE = "Docker Compose is not installed (apt install docker-compose)"


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def variables(name: str) -> dict[str, str]:
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", (DEPLOY / name).read_text(), flags=re.MULTILINE)
    return dict(lines)


def camel(value: Any) -> Any:
    """Return what the chart calls a part of the instance's configuration."""
    if not isinstance(value, dict):
        return value
    return {re.sub("_(.)", lambda m: m[1].upper(), key): camel(one) for key, one in value.items()}


def compose() -> list[str] | None:
    """Return the command of Docker Compose; None where there is none."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker"):
        found = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        return ["docker", "compose"] if found.returncode == 0 else None
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
    local = ("127.0.0.1:", "${CODE_BIND:-127.0.0.1}:")
    assert [port for port in ports if not port.startswith(local)] == []


def test_each_program_may_do_little():
    for name, service in read("programs.yaml")["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    assert re.search(r"^USER [1-9]\d+$", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)


def test_the_gateway_of_the_profile_is_read_only_closed_and_knows_its_password_by_a_file():
    parts = read("host.yaml")["services"]["ib-gateway"]
    said = parts["environment"]
    assert parts["profiles"] == ["gateway"]
    assert "env_file" not in parts, "the others' secrets are in theirs"
    assert (said["READ_ONLY_API"], said["TRADING_MODE"]) == ("yes", "${TRADING_MODE:-paper}")
    assert said["TWS_PASSWORD_FILE"].removeprefix("/run/secrets/") in parts["secrets"]
    assert not {"TWS_PASSWORD", "VNC_SERVER_PASSWORD", "VNC_SERVER_PASSWORD_FILE"} & set(said)
    assert "ports" not in parts
    assert (parts["cap_drop"], parts["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    # The names that gnzsnz/ib-gateway-docker documents for this image.
    assert set(said) == {
        *("TWS_USERID", "TWS_PASSWORD_FILE", "TRADING_MODE", "READ_ONLY_API"),
        *("TWOFA_TIMEOUT_ACTION", "RELOGIN_AFTER_TWOFA_TIMEOUT", "TWOFA_DEVICE"),
        *("TIME_ZONE", "TZ", "AUTO_RESTART_TIME", "TWS_COLD_RESTART"),
    }
    secret = read("host.yaml")["secrets"]["tws_password"]["file"]
    assert {f"deploy/{secret}", ".env"} <= set((ROOT / ".gitignore").read_text().split())


def test_the_health_check_of_the_profile_is_whether_the_api_listens(tmp_path):
    words = read("host.yaml")["services"]["ib-gateway"]["healthcheck"]["test"]
    head = "  sl  local_address rem_address   st tx_queue rx_queue\n"

    def passes(*sockets: str) -> bool:
        (tmp_path / "tcp").write_text(
            head + "".join(f"   0: {one} 00000000:0\n" for one in sockets)
        )
        return subprocess.run([*words[1:4], tmp_path / "tcp"], check=False).returncode == 0

    any_peer = "00000000:0000"
    assert passes(f"0100007F:0FA2 {any_peer} 0A")
    assert passes(f"{'0' * 32}:0FA1 {'0' * 32}:0000 0A"), "as Java listens, by IPv6"
    assert not passes()
    assert not passes(f"00000000:0FA4 {any_peer} 0A"), "socat, which listens from the start"
    assert not passes("0100007F:0FA2 0100007F:C001 01"), "a connection that is still open"


@pytest.mark.parametrize("name", ["compose.yaml", "programs.yaml"])
def test_each_container_has_bounds_of_memory_and_logs_and_a_health_check_of_its_own(name):
    """Of the image's own check, which asks a code server, each other program failed for ever."""
    for service, parts in read(name)["services"].items():
        if "extends" not in parts:
            assert parts["mem_limit"], service
            assert {"max-size", "max-file"} <= set(parts["logging"]["options"]), service
            assert parts["healthcheck"]["test"][0].startswith("CMD"), service
    assert "HEALTHCHECK" not in (DEPLOY / "Dockerfile").read_text()


def test_the_health_check_of_the_gateway_asks_whether_it_accepts_connections():
    words = read("programs.yaml")["services"]["gateway"]["healthcheck"]["test"]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
        ask = [sys.executable, *(word.replace("7497", port) for word in words[2:])]
        assert subprocess.run(ask, check=False).returncode == 0
    assert subprocess.run(ask, check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize(
    ("words", "started"),
    [
        (["run", "-w", "/file"], f"python -m {DAEMON} -w /file"),
        (["liveness-check"], "/app/.venv/bin/dagster-daemon liveness-check"),
    ],
)
def test_the_daemon_of_the_chart_is_the_one_that_takes_the_lock(words, started, tmp_path):
    """The chart starts `dagster-daemon run -w FILE` by bash, which finds the image's own first."""
    script = tmp_path / "dagster-daemon"
    text = (DEPLOY / "dagster-daemon").read_text()
    script.write_text(text.replace("exec ", "exec echo "))
    done = subprocess.run(["/bin/sh", script, *words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == started
    image = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^COPY --chmod=0755 .*deploy/dagster-daemon.* /app/deploy/$", image, re.M)
    assert "PATH=/app/deploy:/app/.venv/bin:$PATH" in image
    assert find_spec(DAEMON)


@pytest.fixture(scope="session")
def kubernetes() -> Any:
    """Return Kubernetes' own models: half a second of imports, in the one process that asks."""
    from kubernetes import client

    return client


def model(of: type[Any], said: Any) -> Any:
    """Return a part of a manifest as Kubernetes' own model; unknown names and types raise."""
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

    return k8s_model_from_dict(of, k8s_snake_case_dict(of, said))


def test_each_part_of_the_helm_values_is_what_kubernetes_reads(kubernetes):
    values = read("helm/values.yaml")
    [code] = values["dagster-user-deployments"]["deployments"]
    daemon, webserver = values["dagsterDaemon"], values["dagsterWebserver"]
    for part in (code, daemon, webserver):
        pod = model(kubernetes.V1PodSecurityContext, part["podSecurityContext"])
        assert pod.run_as_non_root
        assert pod.seccomp_profile.type == "RuntimeDefault"
        assert pod.sysctls is None
        container = model(kubernetes.V1SecurityContext, part["securityContext"])
        assert container.read_only_root_filesystem
        assert container.allow_privilege_escalation is False
        assert model(kubernetes.V1ResourceRequirements, part["resources"]).limits["memory"]
        volumes = {model(kubernetes.V1Volume, one).name for one in part["volumes"]}
        mounts = {model(kubernetes.V1VolumeMount, one).name for one in part["volumeMounts"]}
        assert volumes == mounts
    for part in (code, daemon):
        for one in part["tolerations"]:
            assert model(kubernetes.V1Toleration, one).toleration_seconds >= 30
        assert model(kubernetes.V1Probe, part["livenessProbe"]).period_seconds
    assert daemon["livenessProbe"]["exec"]["command"][0] == "dagster-daemon"
    assert webserver["service"]["port"] == 8080


def test_the_run_launcher_accepts_its_part_of_the_helm_values(kubernetes):
    from dagster_k8s import K8sRunLauncher
    from dagster_k8s.job import UserDefinedDagsterK8sConfig
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

    config = read("helm/values.yaml")["runLauncher"]["config"]["k8sRunLauncher"]
    fields = K8sRunLauncher.config_type()
    assert {re.sub("([A-Z])", lambda m: f"_{m[1].lower()}", name) for name in config} <= set(fields)
    runs = config["runK8sConfig"]
    found = UserDefinedDagsterK8sConfig.from_dict(
        {
            "pod_spec_config": k8s_snake_case_dict(kubernetes.V1PodSpec, runs["podSpecConfig"]),
            "job_spec_config": k8s_snake_case_dict(kubernetes.V1JobSpec, runs["jobSpecConfig"]),
        }
    )
    assert found.job_spec_config["ttl_seconds_after_finished"] <= 300
    pod = k8s_model_from_dict(kubernetes.V1PodSpec, {"containers": []} | found.pod_spec_config)
    assert pod.security_context.seccomp_profile.type == "RuntimeDefault"
    assert pod.tolerations is None
    [spread] = pod.topology_spread_constraints
    assert spread.label_selector.match_labels == {"dagster/job": STREAM_JOB}


def test_a_run_has_the_account_with_the_rights_and_the_label_by_which_an_upgrade_ends_it(
    monkeypatch, kubernetes
):
    """Dagster's launcher makes the job as the chart says: with the account of the code server."""
    from dagster import DagsterRun
    from dagster._core.code_pointer import ModuleCodePointer
    from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
    from dagster_k8s import K8sRunLauncher
    from kubernetes import config as kubernetes_config

    monkeypatch.setattr(kubernetes_config, "load_kube_config", lambda **_: None)
    values = read("helm/values.yaml")
    account = values["dagster-user-deployments"]["serviceAccount"]
    [code] = values["dagster-user-deployments"]["deployments"]
    assert account["create"]
    assert code["includeConfigInLaunchedRuns"]["enabled"]
    example = re.search(r"# +annotations: (\{.+\})", (DEPLOY / "helm" / "values.yaml").read_text())
    metadata = {"name": account["name"], "annotations": yaml.safe_load(example[1])}
    role = model(kubernetes.V1ObjectMeta, metadata).annotations["eks.amazonaws.com/role-arn"]
    assert role.startswith("arn:aws:iam::")

    batch = Mock()
    launcher = K8sRunLauncher(
        service_account_name="of-the-chart",
        instance_config_map="instance",
        dagster_home="/opt/dagster/dagster_home",
        postgres_password_secret="postgres",  # noqa: S106 - the name of a secret
        load_incluster_config=False,
        k8s_client_batch_api=batch,
    )
    launcher.register_instance(instance := Mock())
    image = f"{code['image']['repository']}:{code['image']['tag']}"
    repository = RepositoryPythonOrigin(
        "python",
        ModuleCodePointer("position_sync_dagster.definitions", "defs"),
        image,
        container_context={"k8s": {"service_account_name": account["name"]}},
    )
    run = DagsterRun(
        STREAM_JOB, job_code_origin=JobPythonOrigin(STREAM_JOB, repository), run_id=str(uuid4())
    )
    launcher._launch_k8s_job_with_args("name", ["dagster"], run)
    assert instance.add_run_tags.called
    job = batch.create_namespaced_job.call_args.kwargs["body"]
    assert job.spec.template.spec.service_account_name == account["name"]
    assert [one.image for one in job.spec.template.spec.containers] == [image]
    documented = (ROOT / "docs" / "deploy.md").read_text()
    label, name = re.search(r"kubectl delete job -l ([^=\s]+)=(\S+)", documented).groups()
    assert job.metadata.labels[label] == name


def test_only_daemon_and_webserver_reach_the_port_of_the_code_server(kubernetes):
    values, text = read("helm/values.yaml"), (DEPLOY / "helm" / "values.yaml").read_text()
    [code] = values["dagster-user-deployments"]["deployments"]
    found = read("helm/network-policy.yaml")
    policy = model(kubernetes.V1NetworkPolicy, found)
    assert (policy.api_version, policy.kind) == ("networking.k8s.io/v1", "NetworkPolicy")
    chosen = policy.spec.pod_selector.match_labels
    release = chosen["app.kubernetes.io/instance"]
    assert f"--install {release} dagster/dagster" in text
    assert chosen["component"] == "user-deployments"
    assert chosen["deployment"] == code["name"]
    [ingress] = policy.spec.ingress
    [port] = ingress.ports
    assert port.port == code["port"]
    [peer] = found["spec"]["ingress"][0]["from"]
    sender = model(kubernetes.V1LabelSelector, peer["podSelector"])
    assert sender.match_labels == {"app.kubernetes.io/instance": release}
    [component] = sender.match_expressions
    assert component.values == ["dagster-daemon", "dagster-webserver"]


DEBIAN = """root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc
_apt nobody"""
"""The accounts of each Debian image (base-passwd, apt), which `useradd` refuses to make again."""


def test_the_image_makes_an_account_that_debian_does_not_have():
    found = re.search(r"useradd [^\n]* (\S+) \\\n", (DEPLOY / "Dockerfile").read_text())
    assert found
    assert found[1] not in DEBIAN.split()


def test_each_base_image_can_be_pinned_by_its_digest():
    """An argument that an image is named by must stand before the first FROM."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    bases = [line.split() for line in lines if line.startswith("FROM ")]
    first = lines.index(" ".join(bases[0]))
    pinned = {
        line.split()[1].split("=")[0]: "image@sha256:0"
        for line in lines[:first]
        if line.startswith("ARG ")
    }
    for base in bases:
        assert Template(base[1]).substitute(pinned) == "image@sha256:0"
    stages = {base[3] for base in bases if base[2:3] == ["AS"]}
    copied = re.findall(r"^COPY --from=(\S+)", "\n".join(lines), flags=re.MULTILINE)
    assert set(copied) <= stages
    documented = (ROOT / "docs" / "deploy.md").read_text()
    assert all(f"{name}=" in documented for name in pinned)


def upgrade(first: str) -> list[str]:
    """Return the commands of the block of docs/deploy.md, "Upgrade", that begins so."""
    text = (ROOT / "docs" / "deploy.md").read_text().split("\n## Upgrade\n")[1]
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if block.startswith(first)).splitlines()


def test_an_upgrade_of_hosts_stops_all_saves_and_migrates_before_the_first_new_program_starts():
    steps = upgrade("docker compose")
    file = "docker compose -f deploy/host.yaml"
    assert [step.split("  ")[0] for step in steps] == [
        f"{file} build",
        f"{file} stop",
        "pg_dump --format=custom --file=dagster.dump",
        f"{file} run --rm webserver dagster instance migrate",
        f"{file} up -d",
    ]
    # `run` starts what a service depends on, and with it programs of the new release.
    programs = read("programs.yaml")["services"] | read("host.yaml")["services"]
    assert "depends_on" not in programs["webserver"]


def test_an_upgrade_of_the_chart_starts_no_stream_between_the_old_ones_and_the_migration():
    daemon, streams, last, chart = upgrade("kubectl")
    release = re.search(r"--install (\S+) dagster/", (DEPLOY / "helm/values.yaml").read_text())[1]
    assert daemon == f"kubectl scale deployment {release}-dagster-daemon --replicas=0"
    assert streams.startswith("kubectl delete job ")
    assert last.startswith(f"kubectl delete job {release}-dagster-webserver-instance-migrate ")
    assert chart.startswith(f"helm upgrade {release} dagster/dagster ")
    assert chart.endswith(" --set migrate.enabled=true")


def test_each_program_is_there():
    for service in read("programs.yaml")["services"].values():
        words = service["command"]
        modules = [after for word, after in pairwise(words) if word == "-m"]
        assert all(find_spec(module) for module in modules)
        assert words[0] in ("python", "dagster", "position-sync")


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


def test_the_instance_is_that_of_one_machine_on_postgres():
    one = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    several = read("dagster.yaml")
    assert several.pop("storage")["postgres"]["postgres_url"] == "postgresql+psycopg2://"
    assert several.pop("compute_logs")["class"] == "NoOpComputeLogManager"
    # In a deployment the code server and the daemon need not be on one machine.
    assert one.pop("run_launcher")["class"] == "ForkedRunLauncher"
    assert several["run_coordinator"]["class"] == "PromptRunQueue"
    assert several == one


def test_the_helm_values_say_what_the_instance_says():
    values, instance = read("helm/values.yaml"), read("dagster.yaml")
    daemon = values["dagsterDaemon"]
    queue = daemon["runCoordinator"]
    assert queue["type"] == "CustomRunCoordinator"
    assert queue["config"]["customRunCoordinator"] == instance["run_coordinator"] | {"config": {}}
    assert camel(instance["concurrency"]) | {"enabled": True} == values["concurrency"]
    more = values["additionalInstanceConfig"]
    assert more["nux"] == instance["nux"]
    assert values["telemetry"] == instance["telemetry"]
    assert (
        values["pythonLogs"]["managedPythonLoggers"]
        == (instance["python_logs"]["managed_python_loggers"])
    )
    for kind in ("sensor", "schedule"):
        kept = instance["retention"][kind]["purge_after_days"]
        assert values["retention"][kind]["purgeAfterDays"] == kept
        assert daemon[f"{kind}s"]["useThreads"] == instance[f"{kind}s"]["use_threads"]
    assert (
        values["postgresql"]["postgresqlScheme"] in instance["storage"]["postgres"]["postgres_url"]
    )


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
