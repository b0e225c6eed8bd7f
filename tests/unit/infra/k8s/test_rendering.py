"""Every choice that a user can make renders, keeps the policies, and is what Kubernetes accepts."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from lorry_pipelines.cli.serve import serve_tasks

from fixtures.clusters import COMPONENTS, OVERLAYS, Render, find_object

# Each alone, all but one, and all, in which any two meet.
CHOICES = [
    *((overlay, chosen) for overlay in OVERLAYS for chosen in [(), COMPONENTS]),
    *(("local", (name,)) for name in COMPONENTS),
    *(("gpu", tuple(name for name in COMPONENTS if name != left_out)) for left_out in COMPONENTS),
]


def describe_choice(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else "+".join(value) or "plain"


@pytest.mark.parametrize(("overlay", "components"), CHOICES, ids=describe_choice)
def test_every_choice_keeps_the_policies(
    render: Render, policies: Any, needs: Any, overlay: str, components: tuple[str, ...]
) -> None:
    faults = policies.check_objects(render(overlay, components), needs)
    assert [str(fault) for fault in faults] == []


def test_the_order_of_components_changes_nothing_but_for_workload_identity_which_is_told(
    render: Render, policies: Any, needs: Any
) -> None:
    def sort_objects(components: Sequence[str]) -> list[str]:
        return sorted(json.dumps(item, sort_keys=True) for item in render("gpu", components))

    others = [name for name in COMPONENTS if name != "workload-identity"]
    assert sort_objects([*others, "workload-identity"]) == sort_objects(
        [*reversed(others), "workload-identity"]
    )
    (fault,) = policies.check_objects(render("gpu", ["workload-identity", "gc"]), needs)
    assert "list workload-identity after" in str(fault)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_only_the_user_knows_is_asked_for_and_nothing_else(
    render: Render, policies: Any, needs: Any, overlay: str
) -> None:
    components = [name for name in COMPONENTS if name != "shared-namespace"]
    faults = [
        str(fault) for fault in policies.check_objects(render(overlay, components, decided=False), needs)
    ]
    missing = {
        name
        for name in ("mlflow", "nginx", "lorry", "lorry-serve")
        for fault in faults
        if f"unset.invalid/{name}=" in fault
    }
    assert missing == {"mlflow", "nginx", "lorry", "lorry-serve"}
    settings = ("LORRY_STORE", "MLFLOW_ARTIFACTS_DESTINATION", "PGHOST", "clusterQueue")
    assert [name for name in settings if not any(name in fault for fault in faults)] == []
    assert all("unset.invalid" in fault for fault in faults)


def test_an_overlay_can_be_looked_at_without_any_decision(render: Render) -> None:
    assert {item["kind"] for item in render("gpu", decided=False)} >= {
        "Namespace",
        "Deployment",
        "StatefulSet",
    }


def test_components_without_a_namespace_are_told(render: Render, policies: Any, needs: Any) -> None:
    faults = [str(fault) for fault in policies.check_objects(render("gpu", ["gc"], namespace=None), needs)]
    assert any(fault.startswith("CronJob/lorry-gc: it has no namespace") for fault in faults)


def test_another_namespace_is_used_throughout(render: Render, policies: Any, needs: Any) -> None:
    objects = render("gpu", ["trainer", "shared-namespace"], namespace="team-a")
    assert policies.check_objects(objects, needs) == []
    assert {item["metadata"].get("namespace") for item in objects} == {"team-a", None}
    binding = find_object(objects, "ClusterRoleBinding", "lorry-trainer-runtimes")
    assert binding["subjects"][0]["namespace"] == "team-a"


def test_a_shared_namespace_is_neither_made_nor_limited_nor_cut_off(render: Render) -> None:
    objects = render("gpu", [name for name in COMPONENTS if name != "external-postgres"])
    assert not {"Namespace", "ResourceQuota", "LimitRange"} & {item["kind"] for item in objects}
    ours = {"app.kubernetes.io/instance", "app.kubernetes.io/name", "lorry.database", "lorry.identity"}
    for policy in (item for item in objects if item["kind"] == "NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        keys = {
            *selector.get("matchLabels", {}),
            *(item["key"] for item in selector.get("matchExpressions", [])),
        }
        assert keys & (ours | {"jobset.sigs.k8s.io/jobset-name"}), policy["metadata"]["name"]


def test_workload_identity_leaves_no_keys(render: Render) -> None:
    with_keys, without = (
        str(render("gpu", chosen)) for chosen in (["gc", "serve"], ["gc", "serve", "workload-identity"])
    )
    assert "AWS_SECRET_ACCESS_KEY" in with_keys
    assert "AWS_SECRET_ACCESS_KEY" not in without
    assert "AWS_ACCESS_KEY_ID" not in without


def test_an_external_database_leaves_none_in_the_cluster_and_checks_its_certificate(render: Render) -> None:
    objects = render("gpu", ["external-postgres"])
    assert not {"StatefulSet"} & {item["kind"] for item in objects}
    assert "postgres" not in {item["metadata"]["name"] for item in objects}
    data = find_object(objects, "ConfigMap", "mlflow-database")["data"]
    assert (data["PGHOST"], data["PGSSLMODE"]) == ("postgres.example", "verify-full")
    (server, _) = find_object(objects, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    (mount,) = [mount for mount in server["volumeMounts"] if mount["name"] == "database-ca"]
    assert data["PGSSLROOTCERT"] == f"{mount['mountPath']}/ca.crt"


def test_mlflow_listens_on_loopback_alone_and_runs_no_jobs(everything: list[dict[str, Any]]) -> None:
    server, proxy = find_object(everything, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    assert "--host=127.0.0.1" in server["args"]
    assert "ports" not in server
    assert {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"} in server["env"]
    assert [port["containerPort"] for port in proxy["ports"]] == [8080]
    assert find_object(everything, "Service", "mlflow")["spec"]["ports"][0]["targetPort"] == "proxy"


def test_collection_deletes_nothing(everything: list[dict[str, Any]]) -> None:
    (container,) = find_object(everything, "CronJob", "lorry-gc")["spec"]["jobTemplate"]["spec"]["template"][
        "spec"
    ]["containers"]
    assert container["command"] + container["args"] == ["lorry", "gc", "--json"]


def test_the_server_is_run_as_it_can_be(everything: list[dict[str, Any]]) -> None:
    """Its arguments are the command's own, its port is that of the probes, and it has time for its grace."""
    pod = find_object(everything, "Deployment", "lorry-serve")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["lorry", "serve"]
    options = serve_tasks.make_context("lorry serve", list(container["args"])).params
    assert [port["containerPort"] for port in container["ports"]] == [options["port"]]
    assert options["grace"] < pod["terminationGracePeriodSeconds"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "tokens"]
    assert str(options["tokens"]) == f"{mount['mountPath']}/tokens.txt"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_quota_and_defaults_admit_what_kubeflow_makes(render: Render, overlay: str) -> None:
    objects = render(overlay)
    quota = find_object(objects, "ResourceQuota", "lorry")["spec"]["hard"]
    (container, _) = find_object(objects, "LimitRange", "lorry")["spec"]["limits"]
    # Argo's own containers ask for nothing: each amount that the quota counts has a default.
    counted = {
        name for name in quota if name in {"requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}
    }
    given = {f"requests.{name}" for name in container["defaultRequest"]}
    assert counted <= given | {f"limits.{name}" for name in container["default"]}
    # Fine-tuning asks for processors and has no limit: a default below its request would refuse its pod.
    assert "cpu" not in container["default"]
    assert quota["requests.nvidia.com/gpu"] == {"gpu": "8", "local": "0"}[overlay]


def test_a_changed_setting_restarts_what_reads_it(render: Render) -> None:
    names = [
        find_object(render("gpu", decided=decided), "ConfigMap", "lorry-settings")["metadata"]["name"]
        for decided in (True, False)
    ]
    assert names[0] != names[1]


def test_the_steps_account_may_do_what_the_launcher_does_and_no_more(
    everything: list[dict[str, Any]],
) -> None:
    rules = {
        (group, resource, verb): tuple(rule.get("resourceNames", ()))
        for rule in find_object(everything, "Role", "lorry-pipeline")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert rules == {
        ("argoproj.io", "workflowtaskresults", "create"): (),
        ("argoproj.io", "workflowtaskresults", "patch"): (),
        ("", "configmaps", "get"): ("kfp-launcher",),
        ("", "secrets", "get"): ("mlpipeline-minio-artifact",),
        ("", "pods", "get"): (),
    }
