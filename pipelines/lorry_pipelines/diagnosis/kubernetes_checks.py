"""The cluster's API: whether what a profile names is there, and what the namespace has room for.

Nothing is made there. A secret's values are not looked at, only the names of its keys.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from lorry_components.steps.runtime.kubernetes_api import KubernetesApi, find_status
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_pipelines.diagnosis.findings import Finding
from lorry_registry.errors import ClusterError
from lorry_registry.text.sizes import parse_size

_Found = TypeVar("_Found")
_TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"


def check_api(api: KubernetesApi) -> Sequence[Finding]:
    """Say which cluster is looked at, and as what version it answers."""
    version = str(api.read("/version").get("gitVersion", ""))
    text = f"{version or 'a server without a version'} at {api.host}, namespace {api.namespace}"
    return [Finding("Kubernetes", "ok", text, details={"version": version, "namespace": api.namespace})]


def check_trainer(api: KubernetesApi, profile: ClusterProfile) -> Sequence[Finding]:
    """Look for Kubeflow Trainer and the runtime that the profile names, if it names one."""
    if profile.trainer is None:
        return []
    if api.find(_TRAINER) is None:
        return [
            Finding(
                "Kubeflow Trainer",
                "failure",
                "the cluster does not serve trainer.kubeflow.org/v1alpha1",
                "install Kubeflow Trainer 2.2 or newer, or take trainer out of the profile",
            )
        ]
    name = profile.trainer.runtime
    places = (
        f"{_TRAINER}/namespaces/{api.namespace}/trainingruntimes/{name}",
        f"{_TRAINER}/clustertrainingruntimes/{name}",
    )
    for place in places:
        if api.find(place) is not None:
            return [Finding("Kubeflow Trainer", "ok", f"the runtime {name} is there")]
    return [
        Finding(
            "Kubeflow Trainer",
            "failure",
            f"there is no runtime {name}",
            "kubectl get clustertrainingruntimes lists them; name one in the profile, trainer.runtime",
        )
    ]


def check_queue(api: KubernetesApi, profile: ClusterProfile) -> Sequence[Finding]:
    """Look for Kueue and the LocalQueue that the profile names, if it names one."""
    if profile.queue is None:
        return []
    group = api.find("/apis/kueue.x-k8s.io")
    if group is None:
        todo = "install Kueue, or take queue out of the profile: pods with its labels would wait for ever"
        return [Finding("queue", "failure", "the cluster does not serve kueue.x-k8s.io", todo)]
    version = group.get("preferredVersion", {}).get("groupVersion", "kueue.x-k8s.io/v1beta1")
    name = profile.queue.name
    if api.find(f"/apis/{version}/namespaces/{api.namespace}/localqueues/{name}") is None:
        todo = "kubectl get localqueues says which there are; infra/k8s/components/kueue makes one"
        return [Finding("queue", "failure", f"there is no LocalQueue {name} in {api.namespace}", todo)]
    return [Finding("queue", "ok", f"the LocalQueue {name} is there")]


def check_secrets(api: KubernetesApi, profile: ClusterProfile) -> Sequence[Finding]:
    """Look for the secrets that the profile names, and for their keys."""
    wanted = [(secret.name, tuple(secret.variables), secret.optional) for secret in profile.secrets]
    wanted += [(name, (), False) for name in profile.image_pull_secrets]
    return [_check_secret(api, *one) for one in wanted]


def _check_secret(api: KubernetesApi, name: str, keys: Sequence[str], optional: bool) -> Finding:
    subject = f"secret {name}"

    def look() -> Finding:
        found = api.find(f"/api/v1/namespaces/{api.namespace}/secrets/{name}")
        if found is None:
            if optional:
                return Finding(subject, "ok", "is not there, and need not be")
            given = "".join(f" --from-literal={key}=VALUE" for key in keys)
            kind = f"generic {name}{given}" if keys else f"docker-registry {name} --docker-server=HOST ..."
            todo = f"kubectl -n {api.namespace} create secret {kind}"
            return Finding(subject, "failure", f"is not in {api.namespace}", todo)
        missing = sorted(set(keys) - set(found.get("data") or {}))
        if missing:
            todo = "add them, or correct secrets in the profile; with a missing key no pod starts"
            return Finding(subject, "failure", f"has no key {', '.join(missing)}", todo)
        return Finding(subject, "ok", "is there, with its keys" if keys else "is there")

    return _unless_forbidden(subject, look)


def check_claims(api: KubernetesApi, profile: ClusterProfile) -> Sequence[Finding]:
    """Look for the persistent volume claims that the profile mounts."""
    names = [volume.claim for volume in profile.volumes]
    names += [profile.bases.claim] if profile.bases is not None else []
    return [_check_claim(api, name) for name in dict.fromkeys(names)]


def _check_claim(api: KubernetesApi, name: str) -> Finding:
    subject = f"claim {name}"

    def look() -> Finding:
        found = api.find(f"/api/v1/namespaces/{api.namespace}/persistentvolumeclaims/{name}")
        if found is None:
            todo = "make it, as infra/k8s/base/bases.yaml does, or correct the profile: pods wait for it"
            return Finding(subject, "failure", f"is not in {api.namespace}", todo)
        phase = found.get("status", {}).get("phase", "")
        if phase == "Bound":
            return Finding(subject, "ok", "is bound")
        # One that waits for its first pod is Pending until then.
        todo = f"kubectl -n {api.namespace} describe pvc {name}; it may wait for its first pod"
        return Finding(subject, "warning", f"is {phase or 'not bound'}", todo)

    return _unless_forbidden(subject, look)


def check_quotas(api: KubernetesApi, profile: ClusterProfile) -> Sequence[Finding]:
    """Compare what is left of the namespace's quotas with what the steps ask for."""

    def look() -> list[Finding]:
        found = api.read(f"/api/v1/namespaces/{api.namespace}/resourcequotas")
        items = found.get("items") or ()
        if not items:
            return [Finding("quota", "ok", f"{api.namespace} has none")]
        return [finding for item in items for finding in _judge_quota(item, profile)]

    answer = _unless_forbidden("quota", look)
    return answer if isinstance(answer, list) else [answer]


def _judge_quota(quota: dict[str, Any], profile: ClusterProfile) -> Iterator[Finding]:
    name = quota.get("metadata", {}).get("name", "")
    hard = quota.get("status", {}).get("hard") or quota.get("spec", {}).get("hard") or {}
    used = quota.get("status", {}).get("used") or {}
    subject = f"quota {name}"
    largest = _find_largest(profile)
    problems = []
    for resource, (needed, step) in largest.items():
        if resource not in hard:
            continue
        limit, taken = _count(hard[resource]), _count(used.get(resource, "0"))
        if needed > limit:
            todo = f"raise it, or ask for less in steps.{step} of the profile"
            text = f"{resource} of {hard[resource]} is less than {step} alone asks for"
            problems.append(Finding(subject, "failure", text, todo))
        elif needed > limit - taken:
            text = f"{resource}: {used.get(resource)} of {hard[resource]} are in use, so {step} would wait"
            problems.append(Finding(subject, "warning", text, "wait, or raise the quota"))
    shown = ", ".join(f"{key} {used.get(key, '0')} of {value}" for key, value in sorted(hard.items()))
    yield from problems or [Finding(subject, "ok", shown, details={"hard": hard, "used": used})]


def _find_largest(profile: ClusterProfile) -> dict[str, tuple[float, str]]:
    from lorry_pipelines.cluster.profile import CLUSTER_STEPS

    asked: dict[str, list[tuple[float, str]]] = {}
    for step in CLUSTER_STEPS:
        own = profile.find_step(step)
        pairs: dict[str, str | None] = {
            "pods": "1",
            "requests.cpu": own.cpu,
            "limits.cpu": own.cpu_limit,
        }
        if step not in ("finetune", "evaluate"):
            # The memory of these is their task's to say.
            pairs |= {"requests.memory": own.memory, "limits.memory": own.memory_limit}
        for resource, quantity in pairs.items():
            if quantity is not None:
                asked.setdefault(resource, []).append((_count(quantity), step))
    return {resource: max(pairs) for resource, pairs in asked.items()}


def _count(quantity: str) -> float:
    text = str(quantity)
    if text.endswith("m"):
        return float(text[:-1]) / 1000
    try:
        return float(text)
    except ValueError:
        return float(parse_size(text))


def _unless_forbidden(subject: str, look: Callable[[], _Found]) -> _Found | Finding:
    try:
        return look()
    except ClusterError as error:
        if find_status(error) != 403:
            raise
        text = "may not be looked at by this account, which says nothing of the steps' account"
        return Finding(subject, "warning", text, "ask an administrator, or see what the pod found, below")
