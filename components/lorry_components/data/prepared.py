"""The folder that holds prepared data: three tables and, written last, the card that vouches for them."""

import contextlib
import errno
import hashlib
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorry_components.data.data_card import CARD_FILE, DataCard
from lorry_components.data.examples import Example, digest_example
from lorry_components.data.faults import shorten
from lorry_components.data.layout import PARTS
from lorry_components.data.rows import Label
from lorry_components.data.stored_rows import StoredRows, read_table
from lorry_registry.errors import ConflictError, Fault, InvalidDataError, NotFoundError, StoreError
from lorry_registry.files.atomic_write import is_partial

# In the order in which they are removed: without a card nothing else counts.
_OWN_NAMES = (CARD_FILE, *(f"{part}.parquet" for part in PARTS))
_AGAIN = "run prepare_data again"


def order_examples(examples: Sequence[Example]) -> tuple[list[Example], str]:
    """Return examples in an order that depends on nothing but themselves, and the digest of them all."""
    digests = [digest_example(example) for example in examples]
    order = sorted(range(len(examples)), key=digests.__getitem__)
    return [examples[index] for index in order], _join_digests(digests[index] for index in order)


def write_prepared(target: Path, parts: Mapping[str, Sequence[Example]], card: DataCard) -> None:
    """Write the tables and the card, so that the folder is complete or not there.

    A folder that exists already, as Kubeflow makes one, is filled with the card last; what an earlier
    preparation left in it is replaced.

    Args:
        target: The folder.
        parts: The examples of each part, in the order that they are written in.
        card: The card.

    Raises:
        ConflictError: The folder holds something else, or is being written by someone else.
        StoreError: It cannot be written, for example because the disk is full.
    """
    try:
        with _open_folder(target) as folder:
            for part in PARTS:
                _write_part(folder / f"{part}.parquet", parts[part])
            card.save(folder / CARD_FILE)
    except OSError as error:
        raise StoreError(
            f"cannot write the prepared data: {error.strerror or error}",
            where=str(target),
            todo="check that the disk has space and that this user may write there",
        ) from error


def load_card(folder: Path) -> DataCard:
    """Read the card of prepared data.

    Raises:
        NotFoundError: There is none, so the preparation did not end.
        InvalidDataError: It is damaged.
    """
    return DataCard.load(folder / CARD_FILE)


def load_part(folder: Path, part: str) -> list[Example]:
    """Read the examples of one part, and check that they are those that the card vouches for.

    Args:
        folder: The folder of prepared data.
        part: ``train``, ``validation`` or ``test``.

    Raises:
        NotFoundError: There is no such part, or no card.
        InvalidDataError: The card or the table is damaged, or they do not belong together.
    """
    rows, labels = load_rows(folder, part)
    return [Example(row, label) for row, label in zip(rows, labels, strict=True)]


def load_rows(folder: Path, part: str) -> tuple[StoredRows, list[Label]]:
    """Read the inputs and the labels of one part like :func:`load_part`, but as compact as they are stored.

    Args:
        folder: The folder of prepared data.
        part: ``train``, ``validation`` or ``test``.

    Raises:
        NotFoundError: There is no such part, or no card.
        InvalidDataError: The card or the table is damaged, or they do not belong together.
    """
    described = _find_digest(folder, part)
    path = folder / f"{part}.parquet"
    with _reporting_damage(path):
        rows, labels = read_table(path)
        digests = (digest_example(Example(row, label)) for row, label in zip(rows, labels, strict=True))
        found = _join_digests(digests)
    _compare_digests(found, described, path)
    return rows, labels


def load_labels(folder: Path, part: str) -> list[Label]:
    """Read the labels of one part, whose texts are not needed: see :func:`load_part`, which checks all of it.

    Raises:
        InvalidDataError: The table is damaged, or is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{part}.parquet"
    try:
        labels: list[Label] = pq.ParquetFile(path).read(columns=["label"]).column("label").to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        fault = Fault(path.name, f"is damaged: {shorten(str(error), 120)}")
        raise InvalidDataError(str(folder), [fault], todo=_AGAIN) from error
    return labels


def _join_digests(digests: Iterable[bytes]) -> str:
    hasher = hashlib.sha256()
    for digest in digests:
        hasher.update(digest)
    return f"sha256:{hasher.hexdigest()}"


@contextlib.contextmanager
def _open_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to write in: a new one that becomes the target at the end, or the target itself."""
    if target.is_dir():
        with _refilled_folder(target) as folder:
            yield folder
        return
    if target.exists():
        raise ConflictError("is not a folder", where=str(target), todo="give the path of a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    scratch.mkdir()
    try:
        yield scratch
        _publish_folder(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish_folder(scratch: Path, target: Path) -> None:
    try:
        scratch.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise ConflictError(
            "someone else wrote this folder meanwhile", where=str(target), todo="use theirs, or another"
        ) from error


@contextlib.contextmanager
def _refilled_folder(target: Path) -> Iterator[Path]:
    strangers = sorted(
        entry.name
        for entry in target.iterdir()
        if entry.name not in _OWN_NAMES and not is_partial(entry.name)
    )
    if strangers:
        raise ConflictError(
            f"the folder holds something else already: {shorten(', '.join(strangers), 120)}",
            where=str(target),
            todo="give the path of a new or an empty folder",
        )
    _remove_prepared(target)
    try:
        yield target
    except BaseException:
        _remove_prepared(target)
        raise


def _remove_prepared(folder: Path) -> None:
    leftovers = [entry.name for entry in folder.iterdir() if is_partial(entry.name)]
    for name in (*_OWN_NAMES, *leftovers):
        (folder / name).unlink(missing_ok=True)


def _write_part(path: Path, examples: Sequence[Example]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        field: pa.array([example.row[field] for example in examples], pa.string())
        for field in examples[0].row
    }
    labels: list[Label] = [example.label for example in examples]
    columns["label"] = pa.array(labels, pa.string() if isinstance(labels[0], str) else pa.float64())
    pq.write_table(pa.table(columns), path)


def _find_digest(folder: Path, part: str) -> str | None:
    if part not in PARTS:
        raise NotFoundError(
            f"there is no part {part!r}", where=str(folder), todo=f"ask for {', '.join(PARTS)}"
        )
    described = {str(name): split.digest for name, split in load_card(folder).splits.items()}
    return described.get(part)


def _compare_digests(found: str, described: str | None, path: Path) -> None:
    if found != described:
        fault = Fault(path.stem, "its rows are not those that the data card describes")
        raise InvalidDataError(str(path), [fault], todo=_AGAIN)


@contextlib.contextmanager
def _reporting_damage(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError as error:
        raise InvalidDataError(
            str(path.parent), [Fault(path.name, "is missing beside its data card")], todo=_AGAIN
        ) from error
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        # The last three: columns or cells that no table of ours has.
        fault = Fault(path.name, f"is damaged: {shorten(str(error), 120)}")
        raise InvalidDataError(str(path.parent), [fault], todo=_AGAIN) from error
