"""Checks what Dagster's Helm chart makes of `deploy/helm/values.yaml`.

`make chart-check CHART=dagster/dagster` pipes what `helm template` writes into it. It reads each
manifest by Kubernetes' own models, and Dagster's configuration in them by Dagster. It names what
would start with more rights than it needs, and what the chart does not take over: exit status 1.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterInvalidConfigError
from dagster._core.instance.config import dagster_instance_config
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes import client as kubernetes

PODS = {"dagster-daemon", "dagster-webserver", "user-deployments"}
MIGRATION = ["dagster", "instance", "migrate"]
QUEUE = {"module": "position_sync_dagster.dagster_host.launcher", "class": "PromptRunQueue"}


def problems(rendered: str) -> list[str]:
    """Return what is wrong with the manifests of a rendered chart, in plain sentences."""
    found: list[str] = []
    components: set[str] = set()
    instances = migrations = 0
    for manifest in filter(None, map(_without_null, yaml.safe_load_all(rendered))):
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        named = f"{kind} {name}"
        try:
            read = _model(manifest)
        except Exception as error:  # noqa: BLE001 - dagster_k8s raises no narrower one
            found.append(f"{named}: Kubernetes does not read it: {error}")
            continue
        if kind == "Deployment":
            components.add(read.spec.template.metadata.labels["component"])
            found += [f"{named}: {one}" for one in _rights(read.spec.template.spec)]
        if kind == "Job":
            found += [f"{named}: {one}" for one in _rights(read.spec.template.spec)]
            migrations += any(
                [*(one.command or ()), *(one.args or ())] == MIGRATION
                for one in read.spec.template.spec.containers
            )
        if kind == "ConfigMap" and "dagster.yaml" in (read.data or {}):
            instances += 1
            found += [f"{named}: {one}" for one in _instance(read.data["dagster.yaml"])]
    found += [f"There is no Deployment of {one}." for one in sorted(PODS - components)]
    if migrations != 1:
        found.append(f"There are {migrations} jobs that run `{' '.join(MIGRATION)}` and not one.")
    if instances != 1:
        found.append(f"There are {instances} configurations of an instance and not one.")
    return found


def _without_null(value: Any) -> Any:
    """Return a value without the keys that have none, as Kubernetes reads it."""
    if isinstance(value, dict):
        return {key: _without_null(one) for key, one in value.items() if one is not None}
    return [_without_null(one) for one in value] if isinstance(value, list) else value


def _model(manifest: dict[str, Any]) -> Any:
    kind, (group, _, version) = manifest["kind"], manifest["apiVersion"].rpartition("/")
    of = getattr(kubernetes, f"{version.capitalize()}{kind}", None)
    if of is None:
        raise ValueError(f"there is no {kind} of {group or 'the core'} in {version}")
    return k8s_model_from_dict(of, k8s_snake_case_dict(of, manifest))


def _rights(pod: Any) -> Iterator[str]:
    """Give what a pod may that none of ours needs."""
    account = pod.security_context
    if account is None or not account.run_as_non_root:
        yield "it may run as root"
    if account is None or account.seccomp_profile is None:
        yield "it has no seccomp profile"
    for one in pod.containers:
        context = one.security_context
        if context is None or not context.read_only_root_filesystem:
            yield f"container {one.name} may write to its root file system"
        if context is None or context.allow_privilege_escalation is not False:
            yield f"container {one.name} may gain rights"
        if one.resources is None or not (one.resources.limits or {}).get("memory"):
            yield f"container {one.name} has no limit of memory"


def _instance(text: str) -> Iterator[str]:
    """Give what Dagster refuses in the configuration of the instance, and what is not as ours."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dagster.yaml").write_text(text)
        try:
            config, _ = dagster_instance_config(folder)
        except DagsterInvalidConfigError as error:
            yield f"Dagster does not read it: {error}"
            return
    queue = config.get("run_coordinator") or {}
    if {key: queue.get(key) for key in QUEUE} != QUEUE:
        yield f"its run queue is {queue.get('class')} and not {QUEUE['class']}"
    if (config.get("run_launcher") or {}).get("class") != "K8sRunLauncher":
        yield "runs are no jobs of Kubernetes"
    pools = (config.get("concurrency") or {}).get("pools") or {}
    if pools.get("granularity") != "run":
        yield "pools do not count runs (concurrency.pools.granularity)"


def main() -> int:
    """Read the rendered chart from the standard input."""
    found = problems(sys.stdin.read())
    print("\n".join(found) or "The rendered chart is as it should be.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
