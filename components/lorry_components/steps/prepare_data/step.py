"""The step: a source becomes three checked tables and a data card."""

from pathlib import Path

from lorry_components.data.checked_source import read_checked
from lorry_components.data.data_card import DataCard, describe_part, list_labels
from lorry_components.data.examples import Example
from lorry_components.data.object_cache import ObjectCache
from lorry_components.data.prepared import load_card, load_part, order_examples, write_prepared
from lorry_components.data.reading import digest_source
from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.errors import InvalidDataError
from lorry_registry.files.digests import digest_document
from lorry_registry.tasks.input_specs import DataSpec

__all__ = ["DataCard", "Example", "digest_source", "load_card", "load_part", "prepare_data"]


def prepare_data(
    task: ResolvedTask, target: Path, *, base: Path | None = None, cache: ObjectCache | None = None
) -> DataCard:
    """Read, check and divide the data of a task, and write it as Parquet with a data card.

    The folder then holds ``train.parquet``, ``validation.parquet`` and ``test.parquet``, with the columns
    ``text``, ``text_pair`` when the task is about a pair, ``image`` when it is about images (the bytes of the
    file in base64), and ``label`` (a string, or a float64), and ``data_card.json``. It is complete or not
    there; an empty folder that exists is filled, the card last.

    Args:
        task: The task; the source of its data is resolved, its base is not.
        target: The folder to write.
        base: The folder of the task's base: answers that are to be generated are counted in its tokens, to
            warn of those that ``data.max_target`` cuts. None: they are not counted, and no base need be here.
        cache: Where images of a source in S3 are kept; None: they are downloaded each time.

    Returns:
        The card.

    Raises:
        InvalidDataError: The source cannot be used; all of its faults are counted, the first listed.
        ConflictError: The target holds something else.
        StoreError: The target cannot be written.
        MissingExtraError: A hub data set is asked for and ``datasets`` is not installed.
        TrainingError: The task generates texts, and the base's tokenizer has no token that ends one.
    """
    spec, task_type = task.spec, task.task_type
    form = task_type.data_form
    # Before the rows are read: if the source changes meanwhile, the next run sees another digest.
    source_digest = task.source_digest
    checked = read_checked(spec.data, task_type, cache=cache)
    warnings = [*checked.warnings]
    if base is not None:
        warnings += task_type.review_examples(checked.parts, base)
    labels = list_labels(checked.parts) if form.has_classes else None
    if faults := tuple(task_type.check_positive(spec.evaluate, labels)):
        raise InvalidDataError(spec.name, faults)
    ordered = {part: order_examples(examples) for part, examples in checked.parts.items()}
    rows = {part: examples for part, (examples, _) in ordered.items()}
    digests = {part: digest for part, (_, digest) in ordered.items()}
    card = DataCard(
        task=spec.name,
        kind=spec.kind,
        source=_name_source(spec.data),
        revision=spec.data.revision,
        source_digest=source_digest,
        data_digest=digest_document(digests),
        columns=spec.data.columns,
        labels=labels,
        splits={
            part: describe_part(
                rows[part], digests[part], label_form=form.label_form, spell_label=task_type.spell_label
            )
            for part in rows
        },
        dropped=dict(checked.dropped),
        warnings=tuple(warnings),
    )
    write_prepared(target, rows, card)
    return card


def _name_source(data: DataSpec) -> str:
    """Return the name of a source for its card, which does not say where on a disk it is."""
    return Path(data.source).name if data.is_local else data.source
