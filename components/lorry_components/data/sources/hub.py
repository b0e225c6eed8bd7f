"""Sources on the Hugging Face hub, at a pinned revision, through ``datasets``; never with remote code."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorry_components.data.faults import FaultLog, refuse_source, shorten
from lorry_components.data.layout import suggest_close
from lorry_components.data.rows import Record
from lorry_registry.errors import MissingExtraError
from lorry_registry.tasks.input_specs import DataSpec

MAX_ROWS = 5_000_000


def load_hub_splits(data: DataSpec) -> Mapping[str, Any]:
    """Return the splits of a hub data set by name, each a ``datasets.Dataset``.

    Raises:
        InvalidDataError: There is no such data set or revision, or it cannot be fetched.
        MissingExtraError: ``datasets`` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            "the 'datasets' package is not installed",
            where=data.source,
            todo="install it with: pip install 'lorry[train]'",
        ) from error
    try:
        # trust_remote_code is never passed: a data set that needs code of its own is refused.
        loaded = datasets.load_dataset(data.source.removeprefix("hub:"), revision=data.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = shorten(f"{type(error).__name__}: {error}", 240)
        refuse_source(
            data.source,
            f"revision {data.revision}",
            f"the hub does not give it: {reason}",
            "check data.source, data.revision and the network; a data set with several configurations "
            "or with code of its own has to be saved as files first",
        )
    return loaded if isinstance(loaded, Mapping) else {"train": loaded}


def read_split(dataset: Any, name: str, wanted: Sequence[str], label: str, log: FaultLog) -> Iterator[Record]:
    """Yield the rows of one split. Classes kept as numbers come out by their names.

    Args:
        dataset: A ``datasets.Dataset``.
        name: The name of the split.
        wanted: The columns that are needed.
        label: Which of them is the label.
        log: Where faults go.
    """
    columns: list[str] = dataset.column_names
    missing = [column for column in wanted if column not in columns]
    for column in missing:
        log.add_file(
            name,
            f"has no column {shorten(column)!r}; it has {', '.join(columns)}",
            suggest_close(column, columns),
        )
    if len(dataset) == 0:
        log.add_file(name, "holds no rows")
    if len(dataset) > MAX_ROWS:
        log.add_file(name, f"has {len(dataset):,} rows; a split may have {MAX_ROWS:,}")
        return
    if missing:
        return
    names: Sequence[str] | None = getattr(dataset.features[label], "names", None)
    for number, values in enumerate(dataset.select_columns(list(dict.fromkeys(wanted))), start=1):
        if names is not None:
            values[label] = _name_class(values[label], names)
        yield number, values


def _name_class(index: Any, names: Sequence[str]) -> str | None:
    """Return the name of a class; None for -1, which the hub writes where a label is withheld."""
    return names[index] if isinstance(index, int) and 0 <= index < len(names) else None
