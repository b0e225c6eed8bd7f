"""Kubeflow Pipelines over its REST API: what a submission asks of it, once for each question.

``kfp.Client`` opens the connection; the requests go through its generated API, because that takes time
limits and namespaces where the client's own methods take none (``get_pipeline_id`` ignores the namespace).
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorry_pipelines.cluster.kubeflow_access import KubeflowAccess, check_host, open_client
from lorry_pipelines.cluster.kubeflow_requests import RETRIES, Requests
from lorry_registry.errors import ClusterError, UsageError
from lorry_registry.mlflow.kubeflow_pages import locate_kubeflow_run
from lorry_registry.retries import RetryPolicy

_PAGE = 100

ACTIVE_STATES = frozenset({"PENDING", "RUNNING", "PAUSED", "CANCELING"})
SUCCEEDED = "SUCCEEDED"


@dataclass(frozen=True, slots=True)
class Run:
    """A run as Kubeflow shows it.

    Attributes:
        id: Its id.
        name: Its display name.
        state: Its state, such as ``RUNNING``.
        message: Kubeflow's own words on why it failed; often empty.
    """

    id: str
    name: str
    state: str
    message: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether its state is a last one."""
        return self.state not in ACTIVE_STATES and self.state != "RUNTIME_STATE_UNSPECIFIED"


@dataclass(frozen=True, slots=True)
class Version:
    """An uploaded version of a pipeline."""

    pipeline: str
    id: str


@dataclass(frozen=True, slots=True)
class RunOrder:
    """What a run, or each run of a recurring one, is to be.

    Attributes:
        name: The display name.
        version: What is run.
        arguments: The parameters that differ from their defaults.
        description: Shown beside the run.
        service_account: The account of its pods; empty: Kubeflow's default.
    """

    name: str
    version: Version
    arguments: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    service_account: str = ""

    def build_body(self, experiment: str) -> dict[str, Any]:
        """Return what the API is sent for it."""
        return {
            "display_name": self.name,
            "description": self.description,
            "experiment_id": experiment,
            "pipeline_version_reference": {
                "pipeline_id": self.version.pipeline,
                "pipeline_version_id": self.version.id,
            },
            "runtime_config": {"parameters": dict(self.arguments)},
            "service_account": self.service_account,
        }


class Kubeflow:
    """One installation of Kubeflow Pipelines.

    Args:
        access: Where it is.
        retries: How often a request is repeated.

    Raises:
        UsageError: The address is none, holds a password, or the installation has users and no namespace is
            named.
        ClusterError: It cannot be reached, or refuses who asks.
    """

    def __init__(self, access: KubeflowAccess, retries: RetryPolicy = RETRIES) -> None:
        self._access = access
        check_host(access.host)
        self._requests = Requests(access.host, retries)
        self._api = open_client(access)
        self._health = self._read_health()
        # Without users, a namespace in a request is refused.
        self._namespace = access.namespace if self.has_users else None
        if self.has_users and not access.namespace:
            raise UsageError(
                "this Kubeflow has users, so a run belongs to a namespace",
                where=access.host,
                todo="name yours with --namespace or LORRY_KUBEFLOW_NAMESPACE",
            )

    def _read_health(self) -> dict[str, Any]:
        # Read as it comes: the generated client makes an empty answer of a page to log in.
        answer = self._requests.ask(
            "healthz", self._api.healthzs.healthz_service_get_healthz, _preload_content=False
        )
        try:
            document = json.loads(answer.data)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ClusterError(
                "it does not answer as Kubeflow Pipelines does; it may be a page to log in",
                where=self._access.host,
                todo="check the address, often https://HOST/pipeline, and set LORRY_KUBEFLOW_TOKEN or "
                "LORRY_KUBEFLOW_COOKIE",
            )
        return document

    @property
    def version(self) -> str:
        """The version that the backend says it is, such as ``2.17.0``; empty if it does not say."""
        return str(self._health.get("tag_name") or "")

    @property
    def has_users(self) -> bool:
        """Whether runs belong to users' namespaces."""
        return self._health.get("multi_user") is True

    # Pipelines

    def find_pipeline(self, name: str) -> str | None:
        """Return the id of the pipeline of a name."""
        page = self._requests.ask(
            f"pipeline {name}",
            self._api.pipelines.pipeline_service_list_pipelines,
            namespace=self._namespace,
            filter=_filter_name(name),
        )
        return page.pipelines[0].pipeline_id if page.pipelines else None

    def upload_version(self, pipeline: str, version: str, package: Path, description: str) -> Version:
        """Return the version of a pipeline, which is uploaded unless it is there.

        Args:
            pipeline: The pipeline's name; it is created with its first version.
            version: The version's name, which stands for the content of the package.
            package: The compiled pipeline.
            description: Shown beside the version.

        Raises:
            ClusterError: Kubeflow cannot be reached, or refuses the file.
        """
        uploads = self._api.pipeline_uploads
        pipeline_id = self.find_pipeline(pipeline)
        if pipeline_id is None:
            # Kubeflow makes the first version of an uploaded pipeline itself, with a name of its own.
            create = functools.partial(
                uploads.upload_pipeline, str(package), name=pipeline, **self._in_namespace()
            )
            created = self._requests.create(
                f"pipeline {pipeline}",
                create,
                lambda: self.find_pipeline(pipeline),
                lambda made: str(made.pipeline_id),
            )
            pipeline_id = created
        known = self._find_version(pipeline_id, version)
        if known is None:
            create = functools.partial(
                uploads.upload_pipeline_version,
                str(package),
                name=version,
                pipelineid=pipeline_id,
                description=description,
            )
            known = self._requests.create(
                f"version {version}",
                create,
                functools.partial(self._find_version, pipeline_id, version),
                lambda made: str(made.pipeline_version_id),
            )
        return Version(pipeline_id, known)

    def _find_version(self, pipeline_id: str, name: str) -> str | None:
        page = self._requests.ask(
            f"version {name}",
            self._api.pipelines.pipeline_service_list_pipeline_versions,
            pipeline_id=pipeline_id,
            filter=_filter_name(name),
        )
        versions = page.pipeline_versions
        return versions[0].pipeline_version_id if versions else None

    # Experiments

    def ensure_experiment(self, name: str) -> str:
        """Return the id of an experiment, which is created unless it is there."""
        known = self._find_experiment(name)
        if known is not None:
            return known
        create = functools.partial(
            self._api.experiments.experiment_service_create_experiment,
            experiment={"display_name": name, **self._in_namespace()},
        )
        return self._requests.create(
            f"experiment {name}",
            create,
            lambda: self._find_experiment(name),
            lambda made: str(made.experiment_id),
        )

    def _find_experiment(self, name: str) -> str | None:
        page = self._requests.ask(
            f"experiment {name}",
            self._api.experiments.experiment_service_list_experiments,
            filter=_filter_name(name),
            namespace=self._namespace,
        )
        return page.experiments[0].experiment_id if page.experiments else None

    # Runs

    def list_runs(self, experiment: str, name: str) -> list[Run]:
        """Return the runs of a name in an experiment, all pages of them."""
        ask = functools.partial(
            self._api.runs.run_service_list_runs,
            experiment_id=experiment,
            filter=_filter_name(name),
            page_size=_PAGE,
        )
        return [
            _describe_run(run)
            for page in self._requests.list_pages(f"run {name}", ask)
            for run in page.runs or ()
        ]

    def start_run(self, experiment: str, order: RunOrder) -> Run:
        """Start a run of an uploaded version.

        A request whose answer was lost is not repeated before it is known that no such run exists: starting
        one is not idempotent.

        Raises:
            ClusterError: Kubeflow cannot be reached, or refuses.
        """
        name = order.name
        before = {run.id for run in self.list_runs(experiment, name)}

        def find_new() -> Run | None:
            return next((run for run in self.list_runs(experiment, name) if run.id not in before), None)

        create = functools.partial(self._api.runs.run_service_create_run, run=order.build_body(experiment))
        return self._requests.create(f"run {name}", create, find_new, _describe_run)

    def get_run(self, run: str) -> Run:
        """Return a run."""
        return _describe_run(self._requests.ask(f"run {run}", self._api.runs.run_service_get_run, run_id=run))

    def terminate_run(self, run: str) -> None:
        """End a run that goes on; one that is gone is no error.

        Raises:
            ClusterError: Kubeflow cannot be reached, or refuses.
        """
        terminate = self._api.runs.run_service_terminate_run
        self._requests.ask(f"run {run}", terminate, run_id=run, may_be_gone=True)

    def link_run(self, run: str) -> str:
        """Return the address of a run's page."""
        return locate_kubeflow_run(self._access.host, run)

    # Recurring runs

    def replace_recurring(self, experiment: str, order: RunOrder, *, cron: str) -> str:
        """Make a recurring run the only one of its name; Kubeflow cannot change one.

        The new one is created first: a failure in between leaves two, and the next submission removes the
        older.

        Returns:
            Its id.
        """
        body = order.build_body(experiment) | {
            "trigger": {"cron_schedule": {"cron": cron}},
            # One at a time, and missed ones are not made up for: each looks at the present state.
            "max_concurrency": "1",
            "no_catchup": True,
            "mode": "ENABLE",
        }
        name, recurring = order.name, self._api.recurring_runs
        before = self._list_recurring(experiment, name)

        def find_new() -> str | None:
            return next((run for run in self._list_recurring(experiment, name) if run not in before), None)

        create = functools.partial(recurring.recurring_run_service_create_recurring_run, recurring_run=body)
        created = self._requests.create(
            f"recurring run {name}", create, find_new, lambda made: str(made.recurring_run_id)
        )
        self._delete_recurring(before)
        return created

    def delete_recurring(self, experiment: str, name: str) -> bool:
        """Delete the recurring runs of a name; return whether there were any.

        Raises:
            ClusterError: Kubeflow cannot be reached, or refuses.
        """
        found = self._list_recurring(experiment, name)
        self._delete_recurring(found)
        return bool(found)

    def _delete_recurring(self, runs: Sequence[str]) -> None:
        for run in runs:
            self._requests.ask(
                f"recurring run {run}",
                self._api.recurring_runs.recurring_run_service_delete_recurring_run,
                recurring_run_id=run,
                may_be_gone=True,
            )

    def link_recurring(self, recurring: str) -> str:
        """Return the address of a recurring run's page."""
        return f"{self._access.host.rstrip('/')}/#/recurringrun/details/{recurring}"

    def _list_recurring(self, experiment: str, name: str) -> list[str]:
        ask = functools.partial(
            self._api.recurring_runs.recurring_run_service_list_recurring_runs,
            experiment_id=experiment,
            filter=_filter_name(name),
            page_size=_PAGE,
        )
        pages = self._requests.list_pages(f"recurring run {name}", ask)
        return [run.recurring_run_id for page in pages for run in page.recurring_runs or ()]

    def _in_namespace(self) -> dict[str, str]:
        return {"namespace": self._namespace} if self._namespace else {}


def _filter_name(name: str) -> str:
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


def _describe_run(run: Any) -> Run:
    error = run.error.message if run.error is not None and run.error.message else ""
    return Run(run.run_id, run.display_name, str(run.state or "PENDING"), error)
