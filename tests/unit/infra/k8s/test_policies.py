"""Each policy passes sound objects and refuses one that breaks it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fixtures.clusters import Objects, find_object

Change = Callable[[Objects], None]


def find_pod(objects: Objects, kind: str = "Deployment", name: str = "mlflow") -> dict[str, Any]:
    pod: dict[str, Any] = find_object(objects, kind, name)["spec"]["template"]["spec"]
    return pod


def change_container(**fields: Any) -> Change:
    return lambda objects: find_pod(objects)["containers"][0].update(fields)


def change_security(**fields: Any) -> Change:
    return lambda objects: find_pod(objects)["containers"][0]["securityContext"].update(fields)


def change_pod(**fields: Any) -> Change:
    return lambda objects: find_pod(objects).update(fields)


def add_volume(**volume: Any) -> Change:
    return lambda objects: find_pod(objects)["volumes"].append({"name": "more", **volume})


def add_variable(**variable: Any) -> Change:
    return lambda objects: find_pod(objects)["containers"][0]["env"].append(variable)


def change_spec(kind: str, name: str, **fields: Any) -> Change:
    return lambda objects: find_object(objects, kind, name)["spec"].update(fields)


def add_rule(**rule: Any) -> Change:
    full = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], **rule}
    return lambda objects: find_object(objects, "Role", "lorry-pipeline")["rules"].append(full)


def remove_object(kind: str, name: str) -> Change:
    return lambda objects: objects.remove(find_object(objects, kind, name))


def add_object(kind: str, name: str, **fields: Any) -> Change:
    return lambda objects: objects.append(
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "lorry"}, **fields}
    )


def change_labels(kind: str, name: str, **labels: str) -> Change:
    return lambda objects: find_object(objects, kind, name)["metadata"]["labels"].update(labels)


def use_single_node_volume(objects: Objects) -> None:
    find_object(objects, "PersistentVolumeClaim", "lorry-bases")["spec"]["accessModes"] = ["ReadWriteOnce"]
    find_pod(objects)["volumes"].append(
        {"name": "bases", "persistentVolumeClaim": {"claimName": "lorry-bases"}}
    )


def leave_egress_open(objects: Objects) -> None:
    find_object(objects, "NetworkPolicy", "default-deny")["spec"]["policyTypes"] = ["Ingress"]
    objects.remove(find_object(objects, "NetworkPolicy", "names"))


def identify_account(objects: Objects) -> None:
    find_object(objects, "ServiceAccount", "mlflow")["metadata"]["labels"]["lorry.identity"] = "s3"


BROKEN: list[tuple[str, Change, str]] = [
    (
        "refuse_plain_secrets",
        add_object("ConfigMap", "x", data={"tls": "-----BEGIN RSA PRIVATE KEY-----"}),
        "tls looks like",
    ),
    (
        "require_settings",
        change_container(image="unset.invalid/mlflow"),
        "kustomize edit set image unset.invalid/mlflow=",
    ),
    ("require_settings", add_object("ConfigMap", "x", data={"A": "s3://unset.invalid/b"}), "data.A is still"),
    ("require_digests", change_container(image="registry.example/mlflow:v3"), "not named by digest"),
    ("require_digests", change_container(image="registry.example/mlflow"), "not named by digest"),
    (
        "require_digests",
        change_container(image=f"registry.example/mlflow@sha256:{'1' * 63}"),
        "not named by digest",
    ),
    ("refuse_root", change_security(runAsUser=0), "user or group 0"),
    ("refuse_root", change_security(runAsGroup=0), "user or group 0"),
    ("refuse_root", change_security(runAsNonRoot=False), "runAsNonRoot is not true"),
    (
        "refuse_root",
        change_pod(securityContext={"seccompProfile": {"type": "RuntimeDefault"}}),
        "runAsNonRoot",
    ),
    (
        "refuse_root",
        change_pod(initContainers=[{"name": "first", "securityContext": {"runAsUser": 0}}]),
        "container first: it runs as user",
    ),
    ("refuse_privileges", change_security(privileged=True), "privileged"),
    ("refuse_privileges", change_security(allowPrivilegeEscalation=True), "allowPrivilegeEscalation"),
    ("refuse_privileges", change_container(securityContext={}), "allowPrivilegeEscalation"),
    ("refuse_privileges", change_security(capabilities={"drop": ["NET_RAW"]}), "drop ALL"),
    ("refuse_privileges", change_security(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "drop ALL"),
    ("refuse_privileges", change_security(seccompProfile={"type": "Unconfined"}), "seccomp"),
    ("refuse_privileges", change_pod(securityContext={"runAsNonRoot": True}), "seccomp"),
    ("refuse_privileges", change_pod(hostNetwork=True), "hostNetwork"),
    ("refuse_privileges", change_pod(hostPID=True), "hostPID"),
    ("refuse_privileges", change_pod(hostIPC=True), "hostIPC"),
    ("refuse_privileges", change_container(ports=[{"containerPort": 1, "hostPort": 1}]), "port of the node"),
    ("refuse_privileges", add_volume(hostPath={"path": "/"}), "path of the node"),
    ("require_read_only_root", change_security(readOnlyRootFilesystem=False), "root filesystem is writable"),
    ("require_resources", change_container(resources={}), "limits lack cpu and memory"),
    ("require_resources", change_container(resources={"limits": {"cpu": 1, "memory": 1}}), "requests lack"),
    ("require_resources", add_volume(emptyDir={}), "volume more has no sizeLimit"),
    (
        "require_probes",
        lambda objects: find_pod(objects)["containers"][1].pop("readinessProbe"),
        "readinessProbe",
    ),
    (
        "require_probes",
        lambda objects: find_pod(objects)["containers"][0].pop("livenessProbe"),
        "livenessProbe",
    ),
    ("refuse_plain_secrets", add_variable(name="S3_PASSWORD", value="x"), "S3_PASSWORD holds a secret"),
    (
        "refuse_plain_secrets",
        add_variable(name="DATABASE", value="postgresql://me:x@host/d"),
        "DATABASE holds",
    ),
    ("refuse_plain_secrets", add_variable(name="TRACKING", value="https://token@host"), "TRACKING holds"),
    ("refuse_plain_secrets", change_container(args=["--uri=postgresql://me:x@host/d"]), "an argument holds"),
    ("refuse_plain_secrets", add_object("Secret", "mine", stringData={"a": "b"}), "a secret is rendered"),
    ("refuse_plain_secrets", add_object("ConfigMap", "x", data={"HF_TOKEN": "hf_x"}), "HF_TOKEN looks like"),
    (
        "require_one_namespace",
        lambda objects: objects[-1]["metadata"].update(namespace="b"),
        "several namespaces",
    ),
    (
        "require_one_namespace",
        lambda objects: find_object(objects, "Service", "mlflow")["metadata"].pop("namespace"),
        "no namespace",
    ),
    (
        "require_one_namespace",
        lambda objects: find_object(objects, "Namespace", "lorry")["metadata"].update(labels={}),
        "does not enforce the restricted",
    ),
    (
        "require_isolation",
        leave_egress_open,
        "StatefulSet/postgres: no NetworkPolicy for egress selects",
    ),
    (
        "require_isolation",
        change_spec("NetworkPolicy", "default-deny", policyTypes=["Egress"]),
        "for ingress",
    ),
    (
        "require_isolation",
        change_spec("NetworkPolicy", "default-deny", podSelector={"matchLabels": {"a": "b"}}),
        "ingr",
    ),
    (
        "require_matches",
        change_spec("Service", "mlflow", selector={"app": "mlflow"}),
        "its selector matches no pod",
    ),
    (
        "require_matches",
        change_spec("Service", "mlflow", ports=[{"name": "http", "port": 80}]),
        "declares port 80",
    ),
    (
        "require_matches",
        change_spec("NetworkPolicy", "postgres", podSelector={"matchLabels": {"a": "b"}}),
        "no pod",
    ),
    (
        "require_matches",
        change_spec(
            "NetworkPolicy",
            "steps-to-mlflow",
            egress=[{"to": [{"podSelector": {"matchLabels": {"a": "b"}}}]}],
        ),
        "a peer of it matches no pod",
    ),
    ("require_matches", change_spec("NetworkPolicy", "mlflow", egress=[{}]), "is open to everything"),
    (
        "require_matches",
        change_spec("NetworkPolicy", "mlflow", ingress=[{"ports": [{"port": 8080}]}]),
        "open to every",
    ),
    (
        "require_matches",
        lambda objects: find_object(objects, "NetworkPolicy", "mlflow")["spec"]["ingress"][0]["ports"][
            0
        ].update(port=80),
        "declares port 80",
    ),
    (
        "require_matches",
        change_spec("PodDisruptionBudget", "mlflow", selector={"matchLabels": {"a": "b"}}),
        "no pod",
    ),
    (
        "require_matches",
        change_labels("Service", "mlflow", **{"app.kubernetes.io/name": "other"}),
        "no service",
    ),
    (
        "require_matches",
        change_spec("ServiceMonitor", "mlflow", endpoints=[{"port": "web"}]),
        "a port named 'web'",
    ),
    (
        "require_references",
        remove_object("ServiceAccount", "mlflow"),
        "ServiceAccount 'mlflow' is not rendered",
    ),
    ("require_references", remove_object("ConfigMap", "mlflow-hosts"), "neither rendered nor in needs.yaml"),
    ("require_references", remove_object("Role", "lorry-pipeline"), "Role 'lorry-pipeline' is not rendered"),
    (
        "require_references",
        remove_object("PriorityClass", "lorry-services"),
        "PriorityClass 'lorry-services'",
    ),
    ("require_references", remove_object("Deployment", "lorry-serve"), "Deployment 'lorry-serve' is not"),
    ("require_references", remove_object("Service", "postgres"), "Service 'postgres' is not rendered"),
    ("require_references", add_volume(secret={"secretName": "other"}), "Secret 'other' is neither"),
    (
        "require_references",
        add_volume(persistentVolumeClaim={"claimName": "other"}),
        "PersistentVolumeClaim 'other'",
    ),
    ("require_references", change_pod(imagePullSecrets=[{"name": "other"}]), "Secret 'other'"),
    (
        "require_references",
        add_variable(name="A", valueFrom={"secretKeyRef": {"name": "lorry-s3", "key": "other"}}),
        "has no key 'other'",
    ),
    (
        "require_references",
        add_variable(name="A", valueFrom={"configMapKeyRef": {"name": "kfp-launcher", "key": "other"}}),
        "has no key 'other'",
    ),
    (
        "require_references",
        lambda objects: find_object(objects, "ServiceMonitor", "mlflow")["spec"]["endpoints"][0][
            "basicAuth"
        ].update(username={"name": "lorry-mlflow", "key": "user"}),
        "has no key 'user'",
    ),
    ("require_references", add_rule(resources=["secrets"], resourceNames=["other"]), "Secret 'other'"),
    ("require_least_rights", add_rule(verbs=["*"]), "wildcard"),
    ("require_least_rights", add_rule(resources=["*"]), "wildcard"),
    ("require_least_rights", add_rule(apiGroups=["*"]), "wildcard"),
    ("require_least_rights", add_rule(resources=["secrets"]), "more with secrets"),
    (
        "require_least_rights",
        add_rule(resources=["secrets"], verbs=["list"], resourceNames=["lorry-s3"]),
        "secrets",
    ),
    ("require_least_rights", add_rule(resources=["roles"], verbs=["bind"]), "give itself other rights"),
    ("require_least_rights", add_rule(resources=["serviceaccounts/token"], verbs=["create"]), "give itself"),
    ("require_least_rights", add_rule(resources=["pods/exec"], verbs=["create"]), "enter pods"),
    ("require_least_rights", change_pod(automountServiceAccountToken=True), "mounts a token of mlflow"),
    ("require_one_way_to_s3", identify_account, "list workload-identity after"),
    ("require_safe_updates", use_single_node_volume, "strategy Recreate"),
    ("require_safe_updates", change_spec("PodDisruptionBudget", "mlflow", maxUnavailable=0), "never lets"),
    ("require_safe_updates", change_spec("PodDisruptionBudget", "mlflow", minAvailable=2), "never lets"),
    ("require_safe_updates", change_spec("Deployment", "mlflow", replicas=1), "protects nothing"),
]


@pytest.mark.parametrize(
    ("policy", "change", "message"), BROKEN, ids=[f"{row[0]}-{row[2]}" for row in BROKEN]
)
def test_a_policy_refuses_what_breaks_it(
    policies: Any, needs: Any, everything: Objects, policy: str, change: Change, message: str
) -> None:
    objects = copy.deepcopy(everything)
    (judge,) = [found for found in policies.POLICIES if found.__name__ == policy]
    assert list(judge(policies.Rendered(objects, needs))) == []
    change(objects)
    faults = [str(fault) for fault in judge(policies.Rendered(objects, needs))]
    assert any(message in fault for fault in faults), faults


def test_every_policy_has_a_counterexample(policies: Any) -> None:
    assert {policy.__name__ for policy in policies.POLICIES} == {row[0] for row in BROKEN}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "CronJob", "Job"])
def test_every_kind_that_makes_pods_is_looked_at(
    policies: Any, needs: Any, everything: Objects, kind: str
) -> None:
    objects = copy.deepcopy(everything)
    for item in objects:
        if item["kind"] == kind:
            template = item["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else item["spec"]
            template["template"]["spec"]["hostNetwork"] = True
    faults = policies.check_objects(objects, needs)
    assert {fault.where.split("/")[0] for fault in faults} == {kind}
