"""From the source that a task names to its examples, or to one error that lists what is wrong with it."""

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import JsonValue

from lorry_components.data.examples import Example, collect_examples, list_columns
from lorry_components.data.faults import FaultLog
from lorry_components.data.layout import Layout, choose_layout
from lorry_components.data.object_cache import ObjectCache
from lorry_components.data.records import read_records
from lorry_components.data.rows import LabelReader
from lorry_components.data.sources.hub import load_hub_splits, read_split
from lorry_components.data.sources.local import list_local_files
from lorry_components.data.sources.s3 import download_files, download_named, list_remote_files
from lorry_registry.errors import Fault, InvalidDataError
from lorry_registry.files.digests import DigestFile, digest_document, digest_file
from lorry_registry.tasks.input_specs import DataSpec, SeededSplit, TableFormat


@dataclass(frozen=True, slots=True)
class Reading:
    """The examples of a source.

    Attributes:
        parts: The examples of each part; or all, under ``layout.TABLE``, when ``split`` is set.
        split: How the one table is to be divided; None when the source has its parts.
        dropped: Reason -> how many rows were left out for it.
    """

    parts: Mapping[str, list[Example]]
    split: SeededSplit | None
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """How sources that are not on this machine's disk are read.

    Attributes:
        read: Returns all examples, or raises one error that lists all faults. It may keep the files that rows
            name in the cache, if there is one.
        digest: Returns a digest of the content, without reading its rows; of the files that labels may name,
            too, if what reads the labels is given.
    """

    read: Callable[[DataSpec, LabelReader, ObjectCache | None], Reading]
    digest: Callable[[DataSpec, LabelReader | None], str]


def read_source(data: DataSpec, reader: LabelReader, *, cache: ObjectCache | None = None) -> Reading:
    """Read all examples of a source: a file or folder, or an address with a prefix in :data:`SOURCES`.

    Args:
        data: The task's data section.
        reader: What reads the labels.
        cache: Where files of a remote source that rows name are kept; None: they are downloaded each time.

    Raises:
        InvalidDataError: The source is not there or has faults; all are counted, the first are listed.
        StoreError: A download cannot be kept.
        MissingExtraError: A hub data set is asked for and ``datasets`` is not installed.
    """
    remote = _find_remote(data)
    if remote is not None:
        return remote.read(data, reader, cache)
    local = list_local_files(data.source)
    layout = choose_layout(local.names, data, in_folder=local.in_folder)
    return _read_files(local.folder, layout, data, reader)


def digest_source(
    data: DataSpec, reader: LabelReader | None = None, *, digest: DigestFile = digest_file
) -> str:
    """Return a digest of what a source is, without reading its rows.

    Of local files the contents, by name; of objects in S3 the tags and sizes, by name; of a hub data set
    the revision. Only the files that are read count: a note beside them changes nothing.

    Args:
        data: The task's data section.
        reader: What reads the labels: the files that they may name count too. None: they name none.
        digest: Computes the digest of each local file, or looks it up.

    Raises:
        InvalidDataError: The source is not there, or it is not clear which of its files are meant.
    """
    remote = _find_remote(data)
    if remote is not None:
        return remote.digest(data, reader)
    local = list_local_files(data.source)
    layout = choose_layout(local.names, data, in_folder=local.in_folder)
    try:
        names = [*layout.names, *(reader.list_named_files(local.folder) if reader is not None else ())]
        files: dict[str, JsonValue] = {name: digest(local.folder / name) for name in names}
        return digest_document({"files": files, **_describe_format(data)})
    except OSError as error:
        fault = Fault(Path(error.filename or data.source).name, f"cannot be read: {error.strerror or error}")
        raise InvalidDataError(data.source, [fault], todo="make the file readable for this user") from error


def _find_remote(data: DataSpec) -> RemoteSource | None:
    return next((SOURCES[prefix] for prefix in SOURCES if data.source.startswith(prefix)), None)


def _read_s3(data: DataSpec, reader: LabelReader, cache: ObjectCache | None) -> Reading:
    remote = list_remote_files(data.source, reader.named_file_endings)
    layout = choose_layout(list(remote.objects), data, in_folder=remote.in_folder)
    with tempfile.TemporaryDirectory(prefix="lorry-source-") as scratch:
        folder = Path(scratch)
        download_files(data.source, remote, layout.names, folder)
        if remote.named:
            named = _find_named(folder, layout, data, remote.named)
            download_named(data.source, remote, named, folder, cache)
        return _read_files(folder, layout, data, reader)


def _find_named(folder: Path, layout: Layout, data: DataSpec, known: Collection[str]) -> list[str]:
    """Return which of the known files the labels of some tables name, sorted.

    All that is wrong with the tables is found when their rows are read.
    """
    wanted = list(dict.fromkeys(list_columns(data.columns).values()))
    ignored = FaultLog(data.source)
    labels = (
        values.get(data.columns.label)
        for name in layout.names
        for _, values in read_records(folder / name, name, wanted, ignored, data.format)
    )
    # As the file system would find it: "./a.png" is "a.png".
    named = {str(PurePosixPath(label)) for label in labels if isinstance(label, str)}
    return sorted(named.intersection(known))


def _digest_s3(data: DataSpec, reader: LabelReader | None) -> str:
    remote = list_remote_files(data.source, reader.named_file_endings if reader is not None else ())
    layout = choose_layout(list(remote.objects), data, in_folder=remote.in_folder)
    listed = {**remote.named, **{name: remote.objects[name] for name in layout.names}}
    objects: dict[str, JsonValue] = {name: [entry.etag, entry.size] for name, entry in listed.items()}
    return digest_document({"s3": objects, **_describe_format(data)})


def _describe_format(data: DataSpec) -> dict[str, JsonValue]:
    """Return what the digest of a source says of its format: read in another way it has other rows."""
    return {} if data.format is None else {"format": data.format.model_dump(mode="json")}


def _digest_hub(data: DataSpec, _: LabelReader | None) -> str:
    return digest_document({"hub": data.source, "revision": data.revision})


def _read_files(folder: Path, layout: Layout, data: DataSpec, reader: LabelReader) -> Reading:
    log = FaultLog(data.source)
    dropped = _count_dropped(data)
    form = data.format or TableFormat()
    wanted = list(dict.fromkeys(list_columns(data.columns).values()))
    tables = {
        name: collect_examples(
            read_records(folder / name, name, wanted, log, form),
            name,
            data.columns,
            reader,
            log,
            folder=folder,
            decimal=form.decimal,
            dropped=dropped,
        )
        for name in layout.names
    }
    log.raise_if_any()
    return _join_tables(tables, layout, dropped)


def _read_hub(data: DataSpec, reader: LabelReader, _: ObjectCache | None) -> Reading:
    splits = load_hub_splits(data)
    layout = choose_layout(list(splits), data)
    log = FaultLog(data.source)
    dropped = _count_dropped(data)
    wanted = list(list_columns(data.columns).values())
    tables = {
        name: collect_examples(
            read_split(splits[name], name, wanted, data.columns.label, log),
            name,
            data.columns,
            reader,
            log,
            dropped=dropped,
        )
        for name in layout.names
    }
    log.raise_if_any()
    return _join_tables(tables, layout, dropped)


def _count_dropped(data: DataSpec) -> Counter[str] | None:
    return Counter() if data.on_fault == "drop" else None


def _join_tables(
    tables: Mapping[str, list[Example]], layout: Layout, dropped: Counter[str] | None
) -> Reading:
    parts = {
        part: [example for name in names for example in tables[name]] for part, names in layout.parts.items()
    }
    return Reading(parts, layout.split, dict(dropped or {}))


# By the prefix of addresses; every prefix is also in REMOTE_PREFIXES of lorry_registry.tasks.input_specs.
SOURCES: Mapping[str, RemoteSource] = {
    "hub:": RemoteSource(_read_hub, _digest_hub),
    "s3://": RemoteSource(_read_s3, _digest_s3),
}
