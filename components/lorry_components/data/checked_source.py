"""From a task's data section to parts that can be used: read, divided, limited and checked."""

from dataclasses import replace

from lorry_components.data.checks import CheckedParts, check_parts
from lorry_components.data.layout import TABLE
from lorry_components.data.object_cache import ObjectCache
from lorry_components.data.reading import read_source
from lorry_components.data.rows import LabelReader
from lorry_components.data.splits import limit_parts, split_examples
from lorry_registry.tasks.input_specs import DataSpec


def read_checked(data: DataSpec, reader: LabelReader, *, cache: ObjectCache | None = None) -> CheckedParts:
    """Read a source and check its parts; nothing is written.

    Args:
        data: The task's data section.
        reader: What reads the labels: the task type.
        cache: Where images of a source in S3 are kept; None: they are downloaded each time.

    Raises:
        InvalidDataError: The source cannot be used; all of its faults are counted, the first listed.
        StoreError: A download cannot be kept.
        MissingExtraError: A hub data set is asked for and ``datasets`` is not installed.
    """
    form = reader.data_form
    reading = read_source(data, reader, cache=cache)
    parts = reading.parts
    if reading.split is not None:
        parts = split_examples(
            parts[TABLE], reading.split, label_form=form.label_form, by_context=form.by_context
        )
    checked = check_parts(
        limit_parts(parts, data.limit),
        label_form=form.label_form,
        duplicates=data.duplicates,
        source=data.source,
        by_context=form.by_context,
    )
    return replace(checked, dropped={**reading.dropped, **checked.dropped})
