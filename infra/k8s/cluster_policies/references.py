"""Policies of references by name: rendered, or listed in needs.yaml as made elsewhere."""

from collections.abc import Iterator
from typing import NamedTuple

from cluster_policies.rendered import Fault, Object, Rendered, Workload, name_object

# What Kubernetes itself always has.
SYSTEM_PRIORITIES = frozenset({"system-cluster-critical", "system-node-critical"})


class KeyReference(NamedTuple):
    """A use of a secret or a config map; without a key, where all of it is meant or the key may be absent."""

    where: str
    kind: str
    name: str
    key: str | None


def require_references(rendered: Rendered) -> Iterator[Fault]:
    """All that an object refers to exists: it is rendered, or is said to be made elsewhere."""
    rendered_maps = {
        item["metadata"]["name"]: set(item.get("data") or {}) for item in rendered.find("ConfigMap")
    }
    needed_maps = {name: set(keys) for name, keys in rendered.needs.config_maps.items()}
    known = {
        "Secret": {name: set(keys) for name, keys in rendered.needs.secrets.items()},
        "ConfigMap": {**needed_maps, **rendered_maps},
    }
    for where, kind, name, key in list_key_references(rendered):
        if name not in known[kind]:
            yield Fault(where, f"{kind} {name!r} is neither rendered nor in needs.yaml")
        elif key is not None and key not in known[kind][name]:
            yield Fault(where, f"{kind} {name!r} has no key {key!r}")
    for where, kind, name in list_named_references(rendered):
        if name not in rendered.names(kind):
            yield Fault(where, f"{kind} {name!r} is not rendered")


def list_key_references(rendered: Rendered) -> Iterator[KeyReference]:
    """Every use of a secret or a config map."""
    for workload in rendered.workloads:
        for where, container in workload.list_containers():
            yield from list_variables(where, container)
        yield from list_mounts(workload)
    for monitor in rendered.find("ServiceMonitor"):
        for endpoint in monitor["spec"].get("endpoints", []):
            for source in endpoint.get("basicAuth", {}).values():
                yield KeyReference(name_object(monitor), "Secret", source["name"], source["key"])
    for role in rendered.find("Role"):
        for rule in role.get("rules") or []:
            for resource, kind in (("secrets", "Secret"), ("configmaps", "ConfigMap")):
                if resource in rule["resources"]:
                    for name in rule.get("resourceNames", []):
                        yield KeyReference(name_object(role), kind, name, None)


def list_variables(where: str, container: Object) -> Iterator[KeyReference]:
    """List what a container takes its environment from."""
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if field in source:
                key = None if source[field].get("optional") else source[field]["key"]
                yield KeyReference(where, kind, source[field]["name"], key)
    for source in container.get("envFrom", []):
        for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
            if field in source:
                yield KeyReference(where, kind, source[field]["name"], None)


def list_mounts(workload: Workload) -> Iterator[KeyReference]:
    """List what a pod mounts, and what its images are pulled with."""
    for volume in workload.pod.get("volumes", []):
        if "secret" in volume:
            yield KeyReference(workload.where, "Secret", volume["secret"]["secretName"], None)
        if "configMap" in volume:
            yield KeyReference(workload.where, "ConfigMap", volume["configMap"]["name"], None)
    for secret in workload.pod.get("imagePullSecrets", []):
        yield KeyReference(workload.where, "Secret", secret["name"], None)


def list_named_references(rendered: Rendered) -> Iterator[tuple[str, str, str]]:
    """Where, kind and name of each reference to an object that must be rendered."""
    for workload in rendered.workloads:
        yield workload.where, "ServiceAccount", workload.pod.get("serviceAccountName", "default")
        for volume in workload.pod.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                yield workload.where, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
        priority = workload.pod.get("priorityClassName")
        if priority and priority not in SYSTEM_PRIORITIES:
            yield workload.where, "PriorityClass", priority
        if workload.owner["kind"] == "StatefulSet":
            yield workload.where, "Service", workload.owner["spec"]["serviceName"]
    for scaler in rendered.find("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        yield name_object(scaler), target["kind"], target["name"]
    for binding in rendered.find("RoleBinding", "ClusterRoleBinding"):
        yield name_object(binding), binding["roleRef"]["kind"], binding["roleRef"]["name"]
        for subject in binding.get("subjects", []):
            yield name_object(binding), subject["kind"], subject["name"]
