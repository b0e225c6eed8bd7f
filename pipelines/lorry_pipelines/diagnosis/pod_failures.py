"""Why pods of a run failed: which of them, in whose part of the work, and the last lines that it printed.

A run of Kubeflow has pods of several kinds: before each step and each loop a driver, whose container is
Kubeflow's own, and for a step an executor, in which Kubeflow's launcher starts the step.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lorry_components.steps.runtime.kubernetes_api import KubernetesApi
from lorry_registry.errors import ClusterError
from lorry_registry.text.scrubbing import scrub_text

_LINES = 8
_GO_LINE = re.compile(r"[IWEF]\d{4} .*\.go:\d+\]")
_MAIN = "main"


def read_pod_failures(api: KubernetesApi, run: str) -> list[str]:
    """Return what is known of each pod of a run that failed or cannot start, the earliest first.

    Args:
        api: The cluster's API.
        run: Kubeflow's id of the run.
    """
    try:
        found = api.read(f"/api/v1/namespaces/{api.namespace}/pods", labelSelector=f"pipeline/runid={run}")
    except ClusterError as error:
        return [f"its pods may not be looked at ({error.what})"]
    pods = sorted(found.get("items") or (), key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    texts = [text for pod in pods for text in _describe_pod(api, pod)]
    return texts if pods else ["it has no pods any more, or never had one"]


def _describe_pod(api: KubernetesApi, pod: Mapping[str, Any]) -> Iterator[str]:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if status.get("phase") == "Pending":
        for reason in describe_waiting(pod):
            part = "the scheduling" if reason.startswith("Unschedulable") else "the image or the pod's start"
            yield f"pod {name} does not start ({part}): {reason}"
        return
    if status.get("phase") != "Failed":
        return
    container = _find_failed_container(status)
    lines = _read_last_lines(api, name, container)
    ended = _describe_end(status, container)
    yield "\n".join([f"pod {name} failed in {_name_part(name, container, lines)}{ended}", *lines])


def _find_failed_container(status: Mapping[str, Any]) -> str:
    entries = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    failed = [
        str(entry["name"])
        for entry in entries
        if ((entry.get("state") or {}).get("terminated") or {}).get("exitCode")
    ]
    return next((name for name in failed if name == _MAIN), failed[0] if failed else _MAIN)


def _name_part(pod: str, container: str, lines: list[str]) -> str:
    """Return whose part of the work it is that failed."""
    if "-driver-" in pod:
        return "Kubeflow's driver, before any step"
    if container != _MAIN:
        return f"Kubeflow's launcher, in its container {container}"
    # The launcher is written in Go: where nothing else was printed, the step had not begun.
    has_begun = any(not _GO_LINE.match(line.strip()) for line in lines)
    return "the step" if has_begun else "Kubeflow's launcher, before the step"


def _describe_end(status: Mapping[str, Any], container: str) -> str:
    for entry in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        ended = (entry.get("state") or {}).get("terminated")
        if entry.get("name") == container and ended:
            reason = f", {ended['reason']}" if ended.get("reason") not in (None, "Error") else ""
            return f" (exit code {ended.get('exitCode')}{reason})"
    return f": {status['message']}" if status.get("message") else ""


def _read_last_lines(api: KubernetesApi, pod: str, container: str) -> list[str]:
    path = f"/api/v1/namespaces/{api.namespace}/pods/{pod}/log"
    try:
        text = api.read_text(path, container=container, tailLines=str(_LINES))
    except ClusterError as error:
        return [f"  its log cannot be read ({error.what})"]
    return [f"  {scrub_text(line)}" for line in text.splitlines()[-_LINES:]]


def describe_waiting(pod: Mapping[str, Any]) -> list[str]:
    """Return why a pod does not run, in the cluster's own words."""
    status = pod.get("status", {})
    texts = []
    for kind in ("conditions", "initContainerStatuses", "containerStatuses"):
        for entry in status.get(kind) or ():
            source = entry if kind == "conditions" else (entry.get("state") or {}).get("waiting") or {}
            is_reason = entry.get("status") == "False" if kind == "conditions" else bool(source)
            if is_reason and source.get("message"):
                texts.append(f"{source.get('reason')}: {source['message']}")
    return list(dict.fromkeys(texts))
