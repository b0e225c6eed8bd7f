"""The checks of ``lorry doctor --cluster``."""

import functools
from typing import TYPE_CHECKING

from lorry_components.steps.runtime.kubernetes_api import KubernetesApi
from lorry_pipelines.cli.kubeflow_options import find_access
from lorry_pipelines.diagnosis import Check, Finding
from lorry_registry.errors import LorryError
from lorry_registry.retries import RetryPolicy

if TYPE_CHECKING:
    from lorry_pipelines.cluster.profile import ClusterProfile
    from lorry_registry.settings import Settings

_SECONDS = 60.0
_RETRIES = RetryPolicy(seconds=10.0, first_seconds=0.5, jitter=0.0)
# The time to upload the pipeline, and to read its report.
_MARGIN_SECONDS = 120.0


def list_cluster_checks(settings: "Settings", pod_seconds: int | None) -> list[Check]:
    """Return the checks of a cluster.

    Args:
        settings: Where Kubeflow is, and how steps are placed there.
        pod_seconds: How long is waited for a pod; None: none is started.

    Raises:
        InvalidTaskError: The profile has faults.
        UsageError: It is not known where Kubeflow is.
    """
    from lorry_pipelines.cluster.profile import load_profile
    from lorry_pipelines.diagnosis.kubeflow_checks import ClusterCheck, check_cluster_settings, check_kubeflow

    access = find_access(settings)
    profile = load_profile(settings.kubeflow.profile)
    checks = [
        Check("Settings", "settings", _SECONDS, functools.partial(check_cluster_settings, settings, profile)),
        Check("Kubeflow", "Kubeflow", _SECONDS, functools.partial(check_kubeflow, access)),
    ]
    api: KubernetesApi | None = None
    try:
        api = KubernetesApi.open(access.namespace, _RETRIES)
    except LorryError as error:
        missing = [Finding.from_error("Kubernetes", error, "warning")]
        checks.append(Check("Kubernetes", "Kubernetes", _SECONDS, lambda: missing))
    if api is not None:
        checks += _list_kubernetes_checks(api, profile)
    if pod_seconds is not None:
        inside = ClusterCheck(settings, access, profile, settings.kubeflow.service_account, pod_seconds, api)
        checks.append(Check("From inside", "pod", pod_seconds + _MARGIN_SECONDS, inside.check))
    return checks


def _list_kubernetes_checks(api: KubernetesApi, profile: "ClusterProfile") -> list[Check]:
    from lorry_pipelines.diagnosis.kubernetes_checks import (
        check_api,
        check_claims,
        check_queue,
        check_quotas,
        check_secrets,
        check_trainer,
    )

    placed = {
        "secrets": check_secrets,
        "claims": check_claims,
        "quota": check_quotas,
        "Kubeflow Trainer": check_trainer,
        "queue": check_queue,
    }
    return [
        Check("Kubernetes", "Kubernetes", _SECONDS, functools.partial(check_api, api)),
        *(
            Check("Kubernetes", subject, _SECONDS, functools.partial(check, api, profile))
            for subject, check in placed.items()
        ),
    ]
