"""The facts of a run that a step reads in its environment, for the provenance of its adapters.

``lorry run`` sets these variables; on a cluster the pipeline's starter may set them for its steps.
"""

from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from lorry_registry.errors import UsageError
from lorry_registry.records.provenance import Build, SourceRevision

# Who runs the steps, as a URI.
BUILDER_VARIABLE = "LORRY_BUILDER_ID"
# The commits of the tasks' files, as JSON: {task: {"uri": …, "commit": …, "is_dirty": …}}; "*": of any other.
SOURCES_VARIABLE = "LORRY_SOURCES"
# The image that the step runs in.
IMAGE_VARIABLE = "LORRY_IMAGE"
# sha256:… of the image that the step runs in.
IMAGE_DIGEST_VARIABLE = "LORRY_IMAGE_DIGEST"
PROCESS_BUILDER = "urn:lorry:builder:process"
CONTAINER_BUILDER = "urn:lorry:builder:container"
KUBERNETES_BUILDER = "urn:lorry:builder:kubernetes"
_KUBERNETES_VARIABLE = "KUBERNETES_SERVICE_HOST"
_SOURCES = TypeAdapter(dict[str, SourceRevision])


def read_build(environment: Mapping[str, str], task: str, *, run: str, image: str) -> Build:
    """Return what an environment says about a run of a task.

    Args:
        environment: The step's environment.
        task: The task.
        run: The run's id.
        image: The image of steps in containers, as the settings name it; it may name a digest.

    Raises:
        UsageError: A variable does not hold what it should.
    """
    builder = environment.get(BUILDER_VARIABLE) or (
        KUBERNETES_BUILDER if environment.get(_KUBERNETES_VARIABLE) else PROCESS_BUILDER
    )
    sources = read_sources(environment.get(SOURCES_VARIABLE, ""))
    in_container = builder != PROCESS_BUILDER
    named = image.partition("@")[2] if in_container else ""
    try:
        return Build(
            builder=builder,
            run=run,
            source=sources.get(task) or sources.get("*"),
            image=image if in_container else "",
            image_digest=environment.get(IMAGE_DIGEST_VARIABLE) or named or None,
        )
    except ValidationError as error:
        raise _refuse(IMAGE_DIGEST_VARIABLE, "sha256: and 64 hex digits") from error


def read_sources(text: str) -> dict[str, SourceRevision]:
    """Return the commits of tasks, as :func:`write_sources` wrote them.

    Raises:
        UsageError: It is something else.
    """
    try:
        return _SOURCES.validate_json(text) if text else {}
    except ValidationError as error:
        raise _refuse(SOURCES_VARIABLE, '{"*": {"commit": "<40 hex digits>"}}') from error


def write_sources(sources: Mapping[str, SourceRevision]) -> str:
    """Return the commits of tasks as the variable's value."""
    return _SOURCES.dump_json(dict(sources)).decode("utf-8")


def _refuse(variable: str, form: str) -> UsageError:
    return UsageError("it does not have the form that it should", where=variable, todo=f"write {form}")
