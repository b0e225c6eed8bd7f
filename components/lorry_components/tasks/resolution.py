"""A task with everything that it names, each part located, built or hashed once a process."""

from dataclasses import dataclass, field
from functools import cached_property

from lorry_components.data.reading import digest_source
from lorry_components.methods import Method
from lorry_components.models.bases import Base, identify_base, resolve_base
from lorry_components.task_types import TaskType
from lorry_components.tasks.definition import find_method, find_task_type
from lorry_registry.files.digests import DigestFile, digest_file
from lorry_registry.manifest import BaseIdentity
from lorry_registry.tasks.input_specs import BaseSpec
from lorry_registry.tasks.task_spec import TaskSpec


@dataclass(frozen=True)
class ResolvedTask:
    """A checked task, and what it names. Each part is resolved at its first use, and never again.

    It is for one run of one process: when files may have changed, resolve the task anew.

    Attributes:
        spec: The task as its file describes it.
        digest: Computes the digest of a file, or looks it up.
    """

    spec: TaskSpec
    digest: DigestFile = field(default=digest_file, repr=False, compare=False)

    @cached_property
    def task_type(self) -> TaskType:
        """How its examples are read, scored and predicted."""
        return find_task_type(self.spec)

    def build_method(self) -> Method:
        """Return how its base becomes trainable, with the task's options, which are validated once.

        Each training and each loaded adapter needs a method of its own: some keep what they took out of a
        base, to save what changed.
        """
        return find_method(self.spec)

    @cached_property
    def base(self) -> Base:
        """The folder of its base and the base's identity; a base on a hub is downloaded.

        Raises:
            BaseModelError: The base is not usable.
        """
        return resolve_base(self.spec.base, digest=self.digest)

    @cached_property
    def base_identity(self) -> BaseIdentity:
        """What adapters record of its base; of one with a logical name on S3 nothing is downloaded for it.

        Raises:
            BaseModelError: The base is not usable.
        """
        if self.spec.base.is_named and not self.spec.base.is_here:
            return identify_base(self.spec.base, digest=self.digest)
        return self.base.identity

    @cached_property
    def source_digest(self) -> str:
        """The digest of its data, as they are in the source.

        Raises:
            InvalidDataError: The source is not there, or it is not clear which of its files are meant.
        """
        return digest_source(self.spec.data, self.task_type, digest=self.digest)

    @cached_property
    def recipe_digest(self) -> str:
        """The digest of all that decides what is learned, but for base and data."""
        return self.spec.recipe_digest

    def find_base(self, spec: BaseSpec) -> Base:
        """Return any base, such as a champion's: often it is the task's own, which is not resolved again.

        Raises:
            BaseModelError: The base is not usable.
        """
        own = self.spec.base
        if (spec.model, spec.revision) == (own.model, own.revision) and spec.fingerprint is None:
            return self.base
        return resolve_base(spec.find_in(own.place), digest=self.digest)


def resolve_task(spec: TaskSpec, *, digest: DigestFile = digest_file) -> ResolvedTask:
    """Return a task whose parts are resolved as they are needed.

    Args:
        spec: A checked task: its task type and method exist.
        digest: Computes the digest of a file; by default it reads the whole file. A process that can keep
            digests between runs gives :meth:`lorry_registry.files.digest_cache.DigestCache.digest_file`.
    """
    return ResolvedTask(spec, digest)
