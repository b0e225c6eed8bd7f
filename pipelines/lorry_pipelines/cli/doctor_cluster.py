"""What ``lorry doctor --cluster`` looks at."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.steps.runtime.kubernetes_api import ApiPatience, KubernetesApi
from lorry_pipelines.cli.kubeflow_options import find_access
from lorry_pipelines.diagnosis import Check, Finding
from lorry_registry.cli.edge import load_settings
from lorry_registry.errors import LorryError

if TYPE_CHECKING:
    from lorry_pipelines.cluster.profile import ClusterProfile

_SECONDS = 60.0
_PATIENCE = ApiPatience(seconds=10.0, first_seconds=0.5)
# The time to upload a probe, and to read what it told.
_MARGIN_SECONDS = 120.0


def list_cluster_checks(
    profile_file: Path | None,
    host: str | None,
    namespace: str | None,
    ca_file: Path | None,
    service_account: str,
    probe_seconds: int | None,
) -> list[Check]:
    """Return the checks of a cluster.

    Args:
        profile_file: How steps are placed; None: by the defaults.
        host: Kubeflow Pipelines; None: as the settings say.
        namespace: The namespace of the steps; None: as the settings say.
        ca_file: Certificates by which Kubeflow's is checked; None: as the settings say.
        service_account: The account of the steps.
        probe_seconds: How long is waited for a pod; None: none is started.

    Raises:
        InvalidTaskError: The profile has faults.
        UsageError: It is not known where Kubeflow is.
    """
    from lorry_pipelines.cluster.profile import load_profile
    from lorry_pipelines.diagnosis.kubeflow_checks import Probe, check_cluster_settings, check_kubeflow

    settings = load_settings()
    access = find_access(settings, host, namespace, ca_file)
    profile = load_profile(profile_file)
    checks = [
        Check("Settings", "settings", _SECONDS, functools.partial(check_cluster_settings, settings, profile)),
        Check("Kubeflow", "Kubeflow", _SECONDS, functools.partial(check_kubeflow, access)),
    ]
    api: KubernetesApi | None = None
    try:
        api = KubernetesApi.open(access.namespace, _PATIENCE)
    except LorryError as error:
        missing = [Finding.from_error("Kubernetes", error, "warning")]
        checks.append(Check("Kubernetes", "Kubernetes", _SECONDS, lambda: missing))
    if api is not None:
        checks += _list_kubernetes_checks(api, profile)
    if probe_seconds is not None:
        probe = Probe(settings, access, profile, service_account, probe_seconds, api)
        checks.append(Check("From inside", "probe", probe_seconds + _MARGIN_SECONDS, probe.check))
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
