"""Kubeflow Pipelines: whether it is reached, of what version it is, and what a pod reaches that it starts."""

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from lorry_components.steps.cluster_check.entry import CheckReport, locate_report
from lorry_components.steps.runtime.kubernetes_api import KubernetesApi
from lorry_pipelines.cluster.base_mounts import place_bases
from lorry_pipelines.cluster.kubeflow import Kubeflow, Run, RunOrder
from lorry_pipelines.cluster.kubeflow_access import KubeflowAccess
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_pipelines.cluster.reachability import check_places
from lorry_pipelines.compilation import withhold_secret
from lorry_pipelines.diagnosis.findings import Finding
from lorry_pipelines.diagnosis.pod_failures import describe_waiting, read_pod_failures
from lorry_pipelines.step_images import choose_images
from lorry_registry.errors import ClusterError, InvalidTaskError
from lorry_registry.files.digests import digest_file
from lorry_registry.retries import RetryPolicy
from lorry_registry.settings import Settings
from lorry_registry.stores import open_store

LEAST_VERSION = (2, 17)
EXPERIMENT = "lorry-doctor"
_RETRIES = RetryPolicy(attempts=2)
_LOOK_SECONDS = 5.0
_GUESS = "see the log of its step, {link}; most often a pod cannot write the store, see secrets above"


def check_kubeflow(access: KubeflowAccess) -> Sequence[Finding]:
    """Look whether Kubeflow Pipelines answers, lets this user in, and is new enough."""
    kubeflow = Kubeflow(access, _RETRIES)
    # Healthz is open to all; this is not.
    kubeflow.find_pipeline("lorry")
    users = "with users" if kubeflow.has_users else "without users"
    shown = f"{kubeflow.version or 'of no version that it tells'} at {access.host}, {users}"
    details: dict[str, JsonValue] = {"version": kubeflow.version, "has_users": kubeflow.has_users}
    numbers = re.match(r"v?(\d+)\.(\d+)", kubeflow.version)
    if numbers is None:
        todo = "see that it is 2.17 or newer: kubectl -n kubeflow get deploy ml-pipeline -o wide"
        return [Finding("Kubeflow", "warning", shown, todo, details)]
    if (int(numbers[1]), int(numbers[2])) < LEAST_VERSION:
        todo = "upgrade Kubeflow Pipelines to 2.17 or newer: older ones ignore a run's deadline"
        return [Finding("Kubeflow", "failure", shown, todo, details)]
    return [Finding("Kubeflow", "ok", shown, details=details)]


def check_cluster_settings(settings: Settings, profile: ClusterProfile) -> Sequence[Finding]:
    """Look whether store, MLflow and image are such that pods can reach them."""
    try:
        check_places(settings, profile)
    except InvalidTaskError as error:
        return [Finding(fault.where, "failure", fault.what, fault.remedy) for fault in error.faults]
    return [Finding("settings", "ok", "store, MLflow and image are such that pods can reach them")]


@dataclass(frozen=True, slots=True)
class ClusterCheck:
    """A pipeline of one step that is run on the cluster.

    Attributes:
        settings: Where things are.
        access: Kubeflow.
        profile: How steps are placed.
        service_account: The account of the step; empty: Kubeflow's default.
        seconds: How long is waited for it.
        api: The cluster's API, to say why a pod does not start; None: it is not looked at.
        look_seconds: From one look to the next.
    """

    settings: Settings
    access: KubeflowAccess
    profile: ClusterProfile
    service_account: str
    seconds: float
    api: KubernetesApi | None = None
    look_seconds: float = _LOOK_SECONDS

    @property
    def _image(self) -> str:
        # The one in which every step can run.
        return choose_images(self.settings, self.profile).train.name

    def check(self) -> Sequence[Finding]:
        """Run it, and say what it found; its run stays in Kubeflow as any other.

        Raises:
            ClusterError: Kubeflow cannot be reached, or refuses.
            StoreError: The store cannot be read from here.
        """
        try:
            check_places(self.settings, self.profile)
        except InvalidTaskError:
            todo = "correct the settings above first"
            return [Finding("pod", "warning", "is not started: a pod could not reach what it needs", todo)]
        kubeflow = Kubeflow(self.access, _RETRIES)
        run = self._start(kubeflow)
        link = kubeflow.link_run(run.id)
        until = time.monotonic() + self.seconds
        while not run.has_ended and time.monotonic() < until:
            time.sleep(self.look_seconds)
            run = kubeflow.get_run(run.id)
        if not run.has_ended:
            # Before it is ended, since its pod goes with it.
            reason = self._explain_waiting(run)
            kubeflow.terminate_run(run.id)
            return [reason]
        return self._read(run, link)

    def _start(self, kubeflow: Kubeflow) -> Run:
        from lorry_pipelines.cluster_check_graph import CLUSTER_CHECK_NAME, compile_cluster_check

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cluster_check.yaml"
            compile_cluster_check(
                path,
                image=self._image,
                store=self.settings.store,
                tracking_uri=withhold_secret(self.settings.tracking_uri),
                profile=place_bases(self.profile, self.settings),
            )
            version = digest_file(path).removeprefix("sha256:")[:16]
            uploaded = kubeflow.upload_version(CLUSTER_CHECK_NAME, version, path, "what a pod reaches")
        order = RunOrder(
            f"{CLUSTER_CHECK_NAME}-{time.time_ns()}",
            uploaded,
            description="lorry doctor --cluster",
            service_account=self.service_account,
        )
        return kubeflow.start_run(kubeflow.ensure_experiment(EXPERIMENT), order)

    def _read(self, run: Run, link: str) -> Sequence[Finding]:
        store = open_store(self.settings.store, self.settings.s3)
        stored = store.read(locate_report(run.id))
        if stored is None:
            message = f": {run.message}" if run.message else ""
            text = f"its run is {run.state}{message}, and its step wrote nothing into the store"
            failures = read_pod_failures(self.api, run.id) if self.api is not None else []
            todo = f"see the logs of its pods: {link}" if failures else _GUESS.format(link=link)
            return [Finding("pod", "failure", "\n".join([text, *failures]), todo)]
        store.delete(locate_report(run.id))
        report = CheckReport.model_validate_json(stored.content)
        return [
            Finding("image", "ok", f"{self._image} was pulled, and a pod of it ran"),
            *(
                Finding(
                    f"{answer.subject}, from inside",
                    "ok" if answer.is_well else "failure",
                    answer.text,
                    answer.todo,
                )
                for answer in report.answers
            ),
        ]

    def _explain_waiting(self, run: Run) -> Finding:
        reasons = self._list_reasons(run) if self.api is not None else []
        text = f"its run is {run.state} after {self.seconds:g} s"
        todo = "kubectl describe pod: a quota, no node that fits, or an image that is not pulled"
        return Finding("pod", "failure", "; ".join([text, *reasons]), todo)

    def _list_reasons(self, run: Run) -> list[str]:
        assert self.api is not None
        read: Callable[..., dict[str, object]] = self.api.read
        try:
            found = read(
                f"/api/v1/namespaces/{self.api.namespace}/pods", labelSelector=f"pipeline/runid={run.id}"
            )
        except ClusterError as error:
            return [f"its pods may not be looked at ({error.what})"]
        items = found.get("items")
        return [text for pod in (items if isinstance(items, list) else ()) for text in describe_waiting(pod)]
