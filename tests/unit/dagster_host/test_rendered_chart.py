"""`make chart-check` names what a rendered chart does not take over from our values."""

import copy
from importlib import import_module
from pathlib import Path

import pytest
import yaml

VALUES = yaml.safe_load(
    (Path(__file__).parents[3] / "deploy" / "helm" / "values.yaml").read_text()
)  # fmt: skip
INSTANCE = {
    "run_launcher": {"module": "dagster_k8s", "class": "K8sRunLauncher"},
    "run_coordinator": {
        "module": "position_sync_dagster.dagster_host.launcher", "class": "PromptRunQueue",
    },
    "concurrency": {"pools": {"granularity": "run"}},
}  # fmt: skip


def pod_of(values, **more):
    container = more | {
        "name": "dagster", "image": "one",
        "securityContext": values["securityContext"], "resources": values["resources"],
    }  # fmt: skip
    return {"securityContext": values["podSecurityContext"], "containers": [container]}


def migration():
    """The job of the chart, with what the webserver may do."""
    pod = pod_of(VALUES["dagsterWebserver"], command=["dagster"], args=["instance", "migrate"])
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate"},
        "spec": {"template": {"spec": {"restartPolicy": "Never"} | pod}},
    }  # fmt: skip


def deployment(component, values):
    labels = {"component": component}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": component, "annotations": None},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod_of(values)},
        },
    }


@pytest.fixture
def manifests():
    """A chart that takes everything over."""
    [code] = VALUES["dagster-user-deployments"]["deployments"]
    return [
        deployment("user-deployments", code),
        deployment("dagster-daemon", copy.deepcopy(VALUES["dagsterDaemon"])),
        deployment("dagster-webserver", VALUES["dagsterWebserver"]),
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "instance"},
            "data": {"dagster.yaml": yaml.safe_dump(INSTANCE)},
        },
        migration(),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def found():
    """Import Kubernetes' models where these tests run: that takes half a second in each process."""
    problems = import_module("tests.support.rendered_chart").problems
    return lambda manifests: problems(yaml.safe_dump_all(manifests))


def test_a_chart_that_takes_all_over_has_no_problem(manifests, found):
    assert found(manifests) == []


def test_each_right_that_no_pod_of_ours_needs_is_named(manifests, found):
    pod = manifests[1]["spec"]["template"]["spec"]
    pod["securityContext"] = None
    del pod["containers"][0]["securityContext"], pod["containers"][0]["resources"]
    assert found(manifests) == [
        "Deployment dagster-daemon: it may run as root",
        "Deployment dagster-daemon: it has no seccomp profile",
        "Deployment dagster-daemon: container dagster may write to its root file system",
        "Deployment dagster-daemon: container dagster may gain rights",
        "Deployment dagster-daemon: container dagster has no limit of memory",
    ]


def test_a_migration_that_may_too_much_or_runs_something_else_is_named(manifests, found):
    [container] = manifests[4]["spec"]["template"]["spec"]["containers"]
    container["args"] = ["instance", "upgrade"]
    del container["securityContext"]
    assert found(manifests) == [
        "Job migrate: container dagster may write to its root file system",
        "Job migrate: container dagster may gain rights",
        "There are 0 jobs that run `dagster instance migrate` and not one.",
    ]


def test_what_is_missing_is_named(manifests, found):
    assert found(manifests[:2]) == [
        "There is no Deployment of dagster-webserver.",
        "There are 0 jobs that run `dagster instance migrate` and not one.",
        "There are 0 configurations of an instance and not one.",
    ]


def test_what_kubernetes_does_not_know_is_named(manifests, found):
    manifests[0]["spec"]["template"]["spec"]["securityContest"] = {}
    manifests[3]["kind"] = "ConfigMaps"
    unknown, kind, *_ = found(manifests)
    assert unknown.startswith("Deployment user-deployments: Kubernetes does not read it: ")
    assert "securityContest" in unknown
    assert kind == (
        "ConfigMaps instance: Kubernetes does not read it: "
        "there is no ConfigMaps of the core in v1"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"run_coordinator": {"module": "dagster", "class": "Q"}}, "its run queue is Q and not"),
        ({"run_launcher": {"module": "m", "class": "Other"}}, "runs are no jobs of Kubernetes"),
        ({"concurrency": {}}, "pools do not count runs"),
        ({"concurrent": {}}, "Dagster does not read it: "),
    ],
)
def test_an_instance_that_is_not_ours_is_named(manifests, found, change, problem):
    manifests[3]["data"]["dagster.yaml"] = yaml.safe_dump(INSTANCE | change)
    [named] = found(manifests)
    assert named.startswith(f"ConfigMap instance: {problem}")
