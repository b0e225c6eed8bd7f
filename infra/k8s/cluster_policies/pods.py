"""Policies of pods: their images, users, privileges, resources, and secrets."""

import re
from collections.abc import Iterator
from typing import Any

from cluster_policies.rendered import UNSET, Fault, Rendered, name_object, walk_strings

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|ACCESS_?KEY|API_?KEY|PRIVATE_?KEY", re.IGNORECASE
)
USERINFO = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/@]+@", re.IGNORECASE)
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def require_settings(rendered: Rendered) -> Iterator[Fault]:
    """Nothing is left as the base has it for want of a value that only the user knows."""
    for item in rendered.objects:
        for path, text in walk_strings(item):
            if path.endswith(".image") and text.startswith(f"{UNSET}/"):
                todo = f"kustomize edit set image {text.split(':')[0].split('@')[0]}=NAME@sha256:DIGEST"
                yield Fault(name_object(item), f"{path} has no image yet: {todo}")
            elif UNSET in text:
                yield Fault(name_object(item), f"{path} is still {text!r}: set it in your kustomization.yaml")


def require_digests(rendered: Rendered) -> Iterator[Fault]:
    """Name images by digest: a tag is what was pushed last."""
    for workload in rendered.workloads:
        for where, container in workload.list_containers():
            image = str(container.get("image", ""))
            if not image.startswith(f"{UNSET}/") and not DIGEST.search(image):
                yield Fault(where, f"image {image!r} is not named by digest: use NAME@sha256:DIGEST")


def refuse_root(rendered: Rendered) -> Iterator[Fault]:
    """No process is root."""
    for workload in rendered.workloads:
        context = workload.pod.get("securityContext", {})
        for where, container in workload.list_containers():
            effective = {**context, **container.get("securityContext", {})}
            if effective.get("runAsNonRoot") is not True:
                yield Fault(where, "runAsNonRoot is not true")
            if effective.get("runAsUser") == 0 or effective.get("runAsGroup") == 0:
                yield Fault(where, "it runs as user or group 0")


def refuse_privileges(rendered: Rendered) -> Iterator[Fault]:
    """Pods conform to the restricted pod security standard, beyond root, and see nothing of their node."""
    for workload in rendered.workloads:
        pod = workload.pod
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(field):
                yield Fault(workload.where, f"{field} is set")
        for volume in pod.get("volumes", []):
            if "hostPath" in volume:
                yield Fault(workload.where, f"volume {volume.get('name')} is a path of the node")
        for where, container in workload.list_containers():
            own = container.get("securityContext", {})
            capabilities = own.get("capabilities", {})
            if own.get("privileged"):
                yield Fault(where, "it is privileged")
            if own.get("allowPrivilegeEscalation") is not False:
                yield Fault(where, "allowPrivilegeEscalation is not false")
            if "ALL" not in capabilities.get("drop", []) or capabilities.get("add"):
                yield Fault(where, "it does not drop ALL capabilities, or adds some")
            profile = own.get("seccompProfile", pod.get("securityContext", {}).get("seccompProfile", {}))
            if profile.get("type") not in {"RuntimeDefault", "Localhost"}:
                yield Fault(where, "it has no seccomp profile")
            if any("hostPort" in port for port in container.get("ports", [])):
                yield Fault(where, "it takes a port of the node")


def require_read_only_root(rendered: Rendered) -> Iterator[Fault]:
    """Let processes write into volumes alone."""
    for workload in rendered.workloads:
        for where, container in workload.list_containers():
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield Fault(where, "its root filesystem is writable")


def require_resources(rendered: Rendered) -> Iterator[Fault]:
    """Every container says what it needs and what it may take at most; every emptyDir has a limit."""
    for workload in rendered.workloads:
        for where, container in workload.list_containers():
            resources = container.get("resources", {})
            for kind in ("requests", "limits"):
                missing = [name for name in ("cpu", "memory") if name not in resources.get(kind, {})]
                if missing:
                    yield Fault(where, f"{kind} lack {' and '.join(missing)}")
        for volume in workload.pod.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                yield Fault(workload.where, f"volume {volume.get('name')} has no sizeLimit")


def require_probes(rendered: Rendered) -> Iterator[Fault]:
    """Have what runs for ever say whether it lives and whether it is ready."""
    for workload in rendered.workloads:
        if workload.owner["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            for container in workload.pod.get("containers", []):
                missing = [name for name in ("livenessProbe", "readinessProbe") if name not in container]
                if missing:
                    yield Fault(
                        f"{workload.where}, container {container['name']}",
                        f"it has no {' and no '.join(missing)}",
                    )


def refuse_plain_secrets(rendered: Rendered) -> Iterator[Fault]:
    """Secrets are made by the user, outside what is rendered, and reach pods by reference."""
    for item in rendered.find("Secret"):
        yield Fault(
            name_object(item), "a secret is rendered: make it with kubectl, or with an operator, instead"
        )
    for item in rendered.find("ConfigMap"):
        for key, value in (item.get("data") or {}).items():
            if looks_secret(key, value):
                yield Fault(name_object(item), f"{key} looks like a secret")
    for workload in rendered.workloads:
        for where, container in workload.list_containers():
            for variable in container.get("env", []):
                if looks_secret(variable["name"], variable.get("value")):
                    yield Fault(
                        where, f"{variable['name']} holds a secret: take it from one with secretKeyRef"
                    )
            for text in [*container.get("command", []), *container.get("args", [])]:
                if USERINFO.search(text):
                    yield Fault(where, "an argument holds an address with a password")


def looks_secret(name: str, value: Any) -> bool:
    """Whether a plain value is a secret, by its name and by what it holds. A path to a file is none."""
    if not isinstance(value, str) or not value:
        return False
    if PRIVATE_KEY.search(value):
        return True
    return bool(USERINFO.search(value) or (SECRET_NAME.search(name) and not name.endswith("_FILE")))
