"""A training on several nodes, as its step sees it: start the job, show its log, take its result."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lorry_components.steps.finetune.multi_node.node_channel import NodeChannel, NodeWork
from lorry_components.steps.finetune.multi_node.train_job_settings import TrainJobSettings
from lorry_components.steps.finetune.multi_node.train_jobs import NodePod, TrainJob, TrainJobs
from lorry_components.training.checkpoints.stored_checkpoints import warn_of_failure
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.errors import ClusterError, LorryError, TrainingError
from lorry_registry.files.digests import digest_document, shorten_digest

_LOGGER = logging.getLogger(__name__)
_NODE_MODULE = "lorry_components.steps.finetune.multi_node.node_entry"
# JobSet appends "-node-0-NN-xxxxx", and the whole is a name of at most 63 characters.
_NAME_CHARACTERS = 20


@dataclass(frozen=True, slots=True)
class Pace:
    """How often is looked, in seconds.

    Attributes:
        look: From one look at the job to the next.
        beat: From one sign to the nodes that someone waits to the next.
        stuck: For how long a container may fail to start, such as for lack of its image, and for how long a
            deleted job may stay.
    """

    look: float = 10.0
    beat: float = 60.0
    stuck: float = 900.0


def name_job(run: str, task: str, training: str) -> str:
    """Return the name of the job of one step: the same when the step is run again in the same run.

    Args:
        run: The run.
        task: The task.
        training: The name of this very training, which other data or another recipe change.
    """
    digest = shorten_digest(digest_document({"run": run, "task": task, "training": training}), 16)
    readable = task.replace("_", "-")[:_NAME_CHARACTERS].strip("-")
    return f"lorry-{readable}-{digest}"


@dataclass(slots=True)
class MultiNodeJob:
    """The training of one step on several nodes.

    Attributes:
        jobs: The cluster's jobs.
        channel: What is exchanged with the nodes.
        settings: How they are placed.
        name: The job's name.
        pace: How often is looked.
    """

    jobs: TrainJobs
    channel: NodeChannel
    settings: TrainJobSettings
    name: str
    pace: Pace = field(default_factory=Pace)
    _shown: str = ""
    _shown_at: float = field(default_factory=time.monotonic)
    _told: set[str] = field(default_factory=set)
    _stuck_since: float | None = None
    _beaten_at: float | None = None

    def run(self, work: NodeWork, data: Path, target: Path, *, store: str) -> TrainingSummary:
        """Train, and fetch the result.

        The job is deleted in any case, except when this process is killed: the step that
        is run again then finds it by its name.

        Args:
            work: What is trained.
            data: The prepared data.
            target: Where the adapter and its summary go.
            store: The store's address, as the nodes have it.

        Raises:
            ClusterError: The cluster refuses the job, or stays away for long.
            LorryError: What a node raised.
            StoreError: The store cannot be reached.
            TrainingError: The job failed; the reason says what became of which node.
        """
        try:
            self._start(work, data, store)
            self._wait()
            summary = self.channel.fetch_result(target)
        except Exception:
            self._clean_up()
            raise
        self._clean_up()
        return summary

    def _start(self, work: NodeWork, data: Path, store: str) -> None:
        if self.channel.has_result:
            _LOGGER.info("the nodes have finished already")
            return
        known = self.jobs.find(self.name)
        if known is not None and known.status != "Failed":
            _LOGGER.info("the job %s goes on from an earlier attempt of this step", self.name)
            return
        if known is not None:
            _LOGGER.info("the job %s failed in an earlier attempt: %s", self.name, known.reason)
            self._delete_and_wait()
        self.channel.publish(work, data)
        self.channel.beat()
        command = ["python3", "-P", "-m", _NODE_MODULE, store, self.channel.key]
        self.jobs.create(self.name, self.settings, command)
        _LOGGER.info("the job %s trains on %d nodes", self.name, self.settings.nodes)

    def _delete_and_wait(self) -> None:
        self.jobs.delete(self.name)
        until = time.monotonic() + self.pace.stuck
        while self.jobs.find(self.name) is not None:
            if time.monotonic() > until:
                raise TrainingError(
                    f"the job {self.name} of an earlier attempt is deleted, and does not go away",
                    where="Kubeflow Trainer",
                    todo="see its finalizers and pods: kubectl describe trainjob; then start the run again",
                )
            # Its pods are ended first.
            time.sleep(self.pace.look)

    def _wait(self) -> None:
        started = time.monotonic()
        has_run = False
        while not self.channel.has_result:
            self._beat()
            failure = self.channel.find_failure()
            if failure is not None:
                raise failure
            job = self.jobs.find(self.name)
            if job is None:
                raise TrainingError(
                    f"the job {self.name} was deleted while it went on",
                    where="Kubeflow Trainer",
                    todo="start the run again: it goes on from the last checkpoint",
                )
            pods = self.jobs.list_pods(self.name)
            self._show(pods)
            if job.status == "Complete":
                # Its result was complete before, so fetching says what is wrong with it.
                return
            if job.status == "Failed":
                raise self._explain_failure(job, pods)
            running = sum(pod.phase in ("Running", "Succeeded") for pod in pods)
            has_run = has_run or running == self.settings.nodes
            if not has_run:
                self._check_start(job, pods, time.monotonic() - started)
            if time.monotonic() - started > self.settings.deadline_seconds:
                raise TrainingError(
                    f"the job {self.name} has not ended within {self.settings.deadline_seconds} seconds",
                    where="Kubeflow Trainer",
                    todo="raise steps.finetune.timeout_seconds in the profile and start the run again: it "
                    "goes on from the last checkpoint",
                )
            time.sleep(self.pace.look)

    def _beat(self) -> None:
        now = time.monotonic()
        if self._beaten_at is None or now - self._beaten_at >= self.pace.beat:
            self._beaten_at = now
            warn_of_failure(self.channel.beat, "the nodes do not know that someone waits for them")

    # What is shown

    def _show(self, pods: list[NodePod]) -> None:
        for pod in pods:
            if pod.trouble:
                self._tell(f"node {pod.number}: {pod.trouble}")
        first = next((pod for pod in pods if pod.number == 0), None)
        if first is None or first.phase == "Pending":
            return
        # A little more than what passed since the last line, which is left out by its time.
        seconds = int(time.monotonic() - self._shown_at) + 60
        for at, line in self._read_log(first.name, seconds):
            self._shown, self._shown_at = at, time.monotonic()
            _LOGGER.info("node 0: %s", line)

    def _read_log(self, pod: str, seconds: int) -> list[tuple[str, str]]:
        try:
            return self.jobs.read_log(pod, self._shown, seconds)
        except ClusterError as error:
            # A container that is about to start has none.
            _LOGGER.debug("the log of %s cannot be read: %s", pod, error)
            return []

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            _LOGGER.warning("%s", text)

    # What went wrong

    def _check_start(self, job: TrainJob, pods: list[NodePod], waited: float) -> None:
        """Say why nodes do not start, and give up when that lasts too long.

        Raises:
            TrainingError: It does.
        """
        if job.status == "Suspended":
            self._tell(f"the job waits to be admitted: {job.reason}")
        warned = self.jobs.list_warnings(self.name)
        for text in warned:
            self._tell(text)
        stuck = [pod for pod in pods if pod.is_stuck]
        self._stuck_since = (self._stuck_since or time.monotonic()) if stuck else None
        is_stuck = self._stuck_since is not None and time.monotonic() - self._stuck_since > self.pace.stuck
        if not is_stuck and waited <= self.settings.start_seconds:
            return
        reasons = [f"node {pod.number}: {pod.trouble}" for pod in pods if pod.trouble]
        reasons += warned[-3:] + ([f"suspended: {job.reason}"] if job.status == "Suspended" else [])
        running = sum(pod.phase == "Running" for pod in pods)
        raise TrainingError(
            f"{running} of {self.settings.nodes} nodes started within {waited:.0f} seconds: "
            + ("; ".join(reasons) or "the cluster says nothing of why"),
            where=f"the job {self.name}",
            todo="see that the image can be pulled, that nodes with these resources exist, and that quotas "
            "leave room for them; trainer.start_seconds in the profile says how long is waited",
        )

    def _explain_failure(self, job: TrainJob, pods: list[NodePod]) -> LorryError:
        # A node that failed for good may have said so while the job was looked at.
        failure = self.channel.find_failure()
        if failure is not None:
            return failure
        failed = [pod for pod in pods if pod.trouble or pod.phase == "Failed"]
        parts = [f"node {pod.number}: {pod.trouble or pod.phase}" for pod in failed]
        ends = [
            f"the last lines of node {pod.number}:\n{lines}"
            for pod in failed[:2]
            if (lines := self.jobs.read_last_lines(pod.name))
        ]
        return TrainingError(
            "\n".join(["; ".join([job.reason or "the job failed", *parts]), *ends]),
            where=f"the job {self.name}",
            todo="OOMKilled: raise resources.memory. A lost or evicted node: start the run again, it goes on "
            "from the last checkpoint. Otherwise see the lines above",
        )

    def _clean_up(self) -> None:
        _ignore(lambda: self.jobs.delete(self.name), f"the job {self.name} may go on")
        _ignore(self.channel.remove, "what was exchanged with the nodes is left in the store")


def _ignore(call: Callable[[], object], loss: str) -> None:
    warn_of_failure(call, loss)
