"""Who may talk to whom: the policies, put into effect by a small model of what a cluster does with them."""

import ipaddress
from typing import Any

import pytest

from fixtures.clusters import Objects, Render

STEP = {"workflows.argoproj.io/workflow": "lorry-abc"}
NODE = {"jobset.sigs.k8s.io/jobset-name": "train-abc"}
MLFLOW = {
    "app.kubernetes.io/name": "mlflow",
    "app.kubernetes.io/instance": "lorry",
    "lorry.database": "client",
}
POSTGRES = {"app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": "lorry"}
GC = {"app.kubernetes.io/name": "lorry-gc", "app.kubernetes.io/instance": "lorry"}
SERVE = {"app.kubernetes.io/name": "lorry-serve", "app.kubernetes.io/instance": "lorry"}
UPGRADE = {
    "app.kubernetes.io/component": "database-upgrade",
    "app.kubernetes.io/instance": "lorry",
    "lorry.database": "client",
}
STRANGER = {"app": "notebook"}
HERE = {"kubernetes.io/metadata.name": "lorry"}
KUBEFLOW = {"kubernetes.io/metadata.name": "kubeflow"}
API_SERVER = ("10.96.0.1", 6443)
S3 = ("52.216.1.1", 443)


class Network:
    """What NetworkPolicies let through in their namespace, as Kubernetes' documentation defines them."""

    def __init__(self, policies: Any, objects: Objects) -> None:
        self.matches = policies.rendered.matches
        self.specs = [item["spec"] for item in objects if item["kind"] == "NetworkPolicy"]

    def allows(
        self, direction: str, pod: dict[str, str], peer: Any, port: int, protocol: str = "TCP"
    ) -> bool:
        """Whether a pod may reach a peer, or be reached by it: labels of namespace and pod, or an address."""
        chosen = [
            spec
            for spec in self.specs
            if direction in spec["policyTypes"] and self.matches(spec["podSelector"], pod)
        ]
        rules = [rule for spec in chosen for rule in spec.get(direction.lower()) or []]
        side = "from" if direction == "Ingress" else "to"
        return not chosen or any(
            any(self.is_peer(candidate, peer) for candidate in rule[side])
            and (
                "ports" not in rule
                or any(entry["port"] == port and entry["protocol"] == protocol for entry in rule["ports"])
            )
            for rule in rules
        )

    def is_peer(self, candidate: dict[str, Any], peer: Any) -> bool:
        if isinstance(peer, str):
            return "ipBlock" in candidate and is_inside(peer, candidate["ipBlock"])
        if "ipBlock" in candidate:
            return False
        namespace, labels = peer
        wanted = candidate.get("namespaceSelector", {"matchLabels": HERE})
        return bool(
            self.matches(wanted, namespace) and self.matches(candidate.get("podSelector", {}), labels)
        )

    def connects(self, one: dict[str, str], other: dict[str, str], port: int) -> bool:
        """Whether one pod of the namespace reaches another: one must be let out and the other let it in."""
        out = self.allows("Egress", one, (HERE, other), port)
        return out and self.allows("Ingress", other, (HERE, one), port)


def is_inside(address: str, block: dict[str, Any]) -> bool:
    number = ipaddress.ip_address(address)
    return number in ipaddress.ip_network(block["cidr"]) and not any(
        number in ipaddress.ip_network(cidr) for cidr in block.get("except", [])
    )


@pytest.fixture(scope="module")
def network(policies: Any, everything: Objects) -> Network:
    return Network(policies, everything)


@pytest.mark.parametrize(
    ("one", "other", "port"),
    [
        (STEP, MLFLOW, 8080),
        (NODE, MLFLOW, 8080),
        (MLFLOW, POSTGRES, 5432),
        (UPGRADE, POSTGRES, 5432),
        (NODE, NODE, 29500),
    ],
)
def test_what_must_talk_can(network: Network, one: dict[str, str], other: dict[str, str], port: int) -> None:
    assert network.connects(one, other, port)


@pytest.mark.parametrize(
    ("one", "other", "port"),
    [
        (STEP, MLFLOW, 5000),  # past the proxy
        (STEP, POSTGRES, 5432),
        (NODE, POSTGRES, 5432),
        (GC, POSTGRES, 5432),
        (GC, MLFLOW, 8080),
        (SERVE, POSTGRES, 5432),
        (SERVE, MLFLOW, 8080),
        (STEP, SERVE, 8080),
        (STRANGER, SERVE, 8080),
        (STRANGER, MLFLOW, 8080),
        (STRANGER, POSTGRES, 5432),
        (POSTGRES, MLFLOW, 8080),
        (MLFLOW, STEP, 8080),
        (STEP, STEP, 8080),
        (STEP, NODE, 29500),
    ],
)
def test_what_need_not_talk_cannot(
    network: Network, one: dict[str, str], other: dict[str, str], port: int
) -> None:
    assert not network.connects(one, other, port)


@pytest.mark.parametrize(
    ("labels", "port"),
    [
        ({"app": "ml-pipeline"}, 8887),
        ({"component": "metadata-grpc-server"}, 8080),
        ({"app": "seaweedfs"}, 8333),
        ({"app": "minio"}, 9000),
    ],
)
def test_the_launcher_reaches_kubeflow(network: Network, labels: dict[str, str], port: int) -> None:
    assert network.allows("Egress", STEP, (KUBEFLOW, labels), port)
    elsewhere = {"kubernetes.io/metadata.name": "somewhere"}
    assert not network.allows("Egress", STEP, (elsewhere, labels), port)
    assert not network.allows("Egress", STEP, (KUBEFLOW, {"app": "mysql"}), 3306)


@pytest.mark.parametrize("pod", [STEP, NODE, MLFLOW, POSTGRES, GC, SERVE, UPGRADE])
def test_every_pod_resolves_names(network: Network, pod: dict[str, str]) -> None:
    dns = ({"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"})
    assert network.allows("Egress", pod, dns, 53, "UDP")
    assert network.allows("Egress", pod, dns, 53, "TCP")


@pytest.mark.parametrize(
    ("pod", "reaches"),
    [(STEP, True), (MLFLOW, True), (GC, True), (SERVE, True), (NODE, True), (POSTGRES, False)],
)
def test_who_reaches_s3(network: Network, pod: dict[str, str], reaches: bool) -> None:
    assert network.allows("Egress", pod, *S3) is reaches


def test_steps_alone_reach_the_api_server(network: Network) -> None:
    assert network.allows("Egress", STEP, *API_SERVER)
    assert not any(
        network.allows("Egress", pod, *API_SERVER) for pod in (MLFLOW, POSTGRES, GC, SERVE, UPGRADE, NODE)
    )


@pytest.mark.parametrize("pod", [STEP, NODE, MLFLOW, POSTGRES, GC, SERVE, UPGRADE])
@pytest.mark.parametrize("address", ["169.254.169.254", "169.254.170.23", "fd00:ec2::254"])
def test_nobody_reaches_the_nodes_credentials(network: Network, pod: dict[str, str], address: str) -> None:
    assert not any(network.allows("Egress", pod, address, port) for port in (80, 443, 988))


def test_workload_identity_opens_the_metadata_server_to_those_that_use_s3(
    render: Render, policies: Any
) -> None:
    network = Network(policies, render("gpu", ["gc", "serve", "workload-identity"]))
    identified = {"lorry.identity": "s3"}
    assert all(
        network.allows("Egress", pod, "169.254.169.254", 80)
        for pod in (STEP, {**MLFLOW, **identified}, {**GC, **identified}, {**SERVE, **identified})
    )
    assert not network.allows("Egress", POSTGRES, "169.254.169.254", 80)


def test_others_reach_mlflow_only_if_an_administrator_lets_their_namespace_in(network: Network) -> None:
    outside = {"kubernetes.io/metadata.name": "ingress"}
    assert not network.allows("Ingress", MLFLOW, (outside, {}), 8080)
    assert network.allows("Ingress", MLFLOW, ({**outside, "lorry.mlflow-access": "true"}, {}), 8080)
    assert network.allows("Ingress", MLFLOW, ({"kubernetes.io/metadata.name": "monitoring"}, {}), 8080)
    assert not network.allows("Ingress", POSTGRES, ({**outside, "lorry.mlflow-access": "true"}, {}), 5432)


def test_predictions_are_for_namespaces_that_an_administrator_lets_in(network: Network) -> None:
    outside = {"kubernetes.io/metadata.name": "shop"}
    assert not network.allows("Ingress", SERVE, (outside, {}), 8080)
    assert network.allows("Ingress", SERVE, ({**outside, "lorry.serve-access": "true"}, {}), 8080)


def test_an_external_database_is_reached_by_its_clients_alone(render: Render, policies: Any) -> None:
    network = Network(policies, render("gpu", ["external-postgres", "database-upgrade", "gc"]))
    assert network.allows("Egress", MLFLOW, "203.0.113.9", 5432)
    assert network.allows("Egress", UPGRADE, "203.0.113.9", 5432)
    assert not any(network.allows("Egress", pod, "203.0.113.9", 5432) for pod in (STEP, GC))
