"""Policies of relations between objects: namespaces, selectors, rights, volumes, disruptions."""

from collections.abc import Iterator, Mapping, Sequence

from cluster_policies.rendered import Fault, Object, Rendered, Workload, matches, name_object

CLUSTER_KINDS = frozenset(
    {"Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass", "WorkloadPriorityClass"}
)
# The label of pods and accounts that reach S3 by their account's identity.
IDENTITY = "lorry.identity"
# Rights by which an account could give itself others.
ESCALATING_VERBS = frozenset({"escalate", "bind", "impersonate"})


def require_one_namespace(rendered: Rendered) -> Iterator[Fault]:
    """All objects lie in one namespace, and one that is rendered enforces the restricted standard."""
    places = {
        item.get("metadata", {}).get("namespace")
        for item in rendered.objects
        if item["kind"] not in CLUSTER_KINDS
    }
    for item in rendered.objects:
        if item["kind"] not in CLUSTER_KINDS and not item["metadata"].get("namespace"):
            yield Fault(
                name_object(item), "it has no namespace: put `namespace:` into your kustomization.yaml"
            )
    if len(places - {None}) > 1:
        yield Fault("all objects", f"they lie in several namespaces: {', '.join(sorted(places - {None}))}")
    for item in rendered.find("Namespace"):
        for mode in ("enforce", "audit", "warn"):
            if item["metadata"].get("labels", {}).get(f"pod-security.kubernetes.io/{mode}") != "restricted":
                yield Fault(name_object(item), f"it does not {mode} the restricted pod security standard")


def require_isolation(rendered: Rendered) -> Iterator[Fault]:
    """Every pod is cut off in both directions, so that only what a policy names gets through."""
    for workload in rendered.workloads:
        for direction in ("Ingress", "Egress"):
            if not any(
                direction in policy["spec"].get("policyTypes", ["Ingress"])
                and matches(policy["spec"].get("podSelector", {}), workload.labels)
                for policy in rendered.find("NetworkPolicy")
            ):
                yield Fault(workload.where, f"no NetworkPolicy for {direction.lower()} selects its pods")


def require_matches(rendered: Rendered) -> Iterator[Fault]:
    """Every selector selects something, and every port that is named is declared by a pod."""
    for policy in rendered.find("NetworkPolicy"):
        yield from check_network_policy(policy, rendered)
    for service in rendered.find("Service"):
        selector = {"matchLabels": service["spec"].get("selector", {})}
        chosen = [item for item in rendered.workloads if matches(selector, item.labels)]
        if not chosen:
            yield Fault(name_object(service), "its selector matches no pod")
        for port in service["spec"].get("ports", []):
            yield from check_port(name_object(service), port.get("targetPort", port["port"]), chosen)
    for budget in rendered.find("PodDisruptionBudget"):
        if not rendered.selects_something(budget["spec"].get("selector")):
            yield Fault(name_object(budget), "its selector matches no pod")
    for monitor in rendered.find("ServiceMonitor"):
        labels = [service["metadata"].get("labels", {}) for service in rendered.find("Service")]
        if not any(matches(monitor["spec"].get("selector", {}), found) for found in labels):
            yield Fault(name_object(monitor), "its selector matches no service")
        names = {
            port.get("name") for service in rendered.find("Service") for port in service["spec"]["ports"]
        }
        for endpoint in monitor["spec"].get("endpoints", []):
            if endpoint.get("port") not in names:
                yield Fault(name_object(monitor), f"no service has a port named {endpoint.get('port')!r}")


def check_network_policy(policy: Object, rendered: Rendered) -> Iterator[Fault]:
    """Check the pods that a policy is for, and those of this namespace that it lets talk to them."""
    where, spec = name_object(policy), policy["spec"]
    own = spec.get("podSelector", {})
    if not rendered.selects_something(own):
        yield Fault(where, "its podSelector matches no pod")
    for rules, side in ((spec.get("ingress") or [], "from"), (spec.get("egress") or [], "to")):
        for rule in rules:
            if not rule.get(side):
                yield Fault(where, f"a rule without {side!r} is open to everything")
            for peer in rule.get(side, []):
                here = peer.get("podSelector") if "namespaceSelector" not in peer else None
                if here is not None and not rendered.selects_something(here):
                    yield Fault(where, f"a peer of it matches no pod: {dict(here)}")
    chosen = [item for item in rendered.workloads if matches(own, item.labels)]
    for rule in spec.get("ingress") or []:
        for port in rule.get("ports", []):
            yield from check_port(where, port["port"], chosen)


def check_port(where: str, port: str | int, chosen: Sequence[Workload]) -> Iterator[Fault]:
    """Have one of the chosen pods declare a port; pods that others make are not looked at."""
    if chosen and not any(port in item.list_ports() for item in chosen):
        yield Fault(where, f"no container that it selects declares port {port!r}")


def require_least_rights(rendered: Rendered) -> Iterator[Fault]:
    """No wildcard, no list of secrets, no way to more rights; a token only for an account that has any."""
    for role in rendered.find("Role", "ClusterRole"):
        for rule in role.get("rules") or []:
            yield from check_rule(name_object(role), rule)
    bound = {
        subject["name"]
        for binding in rendered.find("RoleBinding", "ClusterRoleBinding")
        for subject in binding.get("subjects", [])
    }
    for workload in rendered.workloads:
        account = workload.pod.get("serviceAccountName", "default")
        if account not in bound and workload.pod.get("automountServiceAccountToken") is not False:
            yield Fault(workload.where, f"it mounts a token of {account}, which has no rights: turn it off")


def check_rule(where: str, rule: Mapping[str, Sequence[str]]) -> Iterator[Fault]:
    """One rule of a role."""
    resources, verbs = set(rule.get("resources", [])), set(rule.get("verbs", []))
    if "*" in {*resources, *verbs, *rule.get("apiGroups", [])}:
        yield Fault(where, "a rule has a wildcard")
    if "secrets" in resources and (verbs != {"get"} or not rule.get("resourceNames")):
        yield Fault(where, "it may do more with secrets than get those that it names")
    if verbs & ESCALATING_VERBS or ("serviceaccounts/token" in resources and "create" in verbs):
        yield Fault(where, "it may give itself other rights")
    if resources & {"pods/exec", "pods/attach", "pods/ephemeralcontainers", "nodes/proxy"}:
        yield Fault(where, "it may enter pods")


def require_one_way_to_s3(rendered: Rendered) -> Iterator[Fault]:
    """Where one pod reaches S3 by its identity, none takes keys from a secret."""
    accounts = rendered.find("ServiceAccount")
    if not any(IDENTITY in item["metadata"].get("labels", {}) for item in accounts):
        return
    for workload in rendered.workloads:
        for where, container in workload.list_containers():
            if any(variable["name"] == "AWS_SECRET_ACCESS_KEY" for variable in container.get("env", [])):
                yield Fault(
                    where, "it takes keys for S3: list workload-identity after the components that use S3"
                )


def require_safe_updates(rendered: Rendered) -> Iterator[Fault]:
    """Two pods never want one volume at once, and a disruption budget lets a node be drained."""
    single = {
        item["metadata"]["name"]
        for item in rendered.find("PersistentVolumeClaim")
        if not {"ReadWriteMany", "ReadOnlyMany"} & set(item["spec"]["accessModes"])
    }
    for workload in rendered.workloads:
        claims = [
            volume.get("persistentVolumeClaim", {}).get("claimName")
            for volume in workload.pod.get("volumes", [])
        ]
        strategy = workload.owner.get("spec", {}).get("strategy", {}).get("type", "RollingUpdate")
        if workload.owner["kind"] == "Deployment" and single & set(claims) and strategy != "Recreate":
            yield Fault(workload.where, "a volume for one node needs strategy Recreate, or a StatefulSet")
    for budget in rendered.find("PodDisruptionBudget"):
        for workload in rendered.workloads:
            if matches(budget["spec"].get("selector", {}), workload.labels):
                replicas = workload.owner.get("spec", {}).get("replicas", 1)
                least, most = budget["spec"].get("minAvailable"), budget["spec"].get("maxUnavailable")
                if most == 0 or least == "100%" or (isinstance(least, int) and least >= replicas):
                    yield Fault(name_object(budget), f"it never lets a pod of {workload.where} go")
                elif replicas == 1:
                    yield Fault(
                        name_object(budget), f"a budget for the one pod of {workload.where} protects nothing"
                    )
