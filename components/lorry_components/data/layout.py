"""The files of a source that make up each part: a decision on names alone."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lorry_components.data.faults import FaultLog, shorten
from lorry_registry.tasks.input_specs import DataSpec, NamedSplits, SeededSplit

PARTS = ("train", "validation", "test")
TABLE = "table"
"""The one key of :attr:`Layout.parts` when the parts are still to be drawn."""

_TEXT_ENDINGS = {".jsonl": "json lines", ".json": "json lines", ".csv": "csv", ".tsv": "tsv"}
_ENDINGS: Mapping[str, str] = {
    ".parquet": "parquet",
    **_TEXT_ENDINGS,
    **{f"{ending}.gz": name for ending, name in _TEXT_ENDINGS.items()},
}
# How the hub and Spark-like writers number the pieces of one table: train-00000-of-00002.
_SHARD = re.compile(r"-\d+-of-\d+$")
_LISTED_NAMES = 8

KNOWN_ENDINGS = ".jsonl, .json (one object a line), .csv, .tsv, each also with .gz, or .parquet"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which files or hub splits hold what.

    Attributes:
        parts: The names of each part; or of everything, under :data:`TABLE`, when ``split`` is set.
        split: How the one table is to be divided; None when the source has its parts.
    """

    parts: Mapping[str, tuple[str, ...]]
    split: SeededSplit | None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that is read, sorted, once."""
        return tuple(sorted({name for names in self.parts.values() for name in names}))


def find_format(name: str) -> str | None:
    """Return the format that the ending of a file name stands for; None for an ending not known."""
    ending = _find_ending(name)
    return _ENDINGS[ending] if ending else None


def list_names(names: Iterable[str]) -> str:
    """Return a few names for a message, and how many more there are."""
    known = sorted(names)
    listed = ", ".join(shorten(name, 40) for name in known[:_LISTED_NAMES])
    more = len(known) - _LISTED_NAMES
    return (f"{listed} and {more} more" if more > 0 else listed) or "none"


def suggest_close(wrong: str, known: Iterable[str]) -> str:
    """Return "did you mean 'text'?" if one of the known names is close, and "" otherwise."""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(wrong.casefold(), folded, n=1, cutoff=0.6)
    return f"did you mean {shorten(folded[close[0]], 40)!r}?" if close else ""


def choose_layout(names: Sequence[str], data: DataSpec, *, in_folder: bool = True) -> Layout:
    """Decide which files, or splits of a hub data set, make up which part.

    With ``splits``, each part is the file of that name without ending, or its numbered pieces
    (``train-00000-of-00002.parquet``). With ``split``, all files together are one table. With neither, a
    folder that holds train, validation and test is taken as such, and a single file is split by default.

    Args:
        names: The readable files, or the hub splits, that there are; at least one.
        data: The task's data section.
        in_folder: Whether the source is a folder or data set, not one file.

    Raises:
        InvalidDataError: A part has no file or several, or it is not clear how the files are meant.
    """
    log = FaultLog(data.source)
    if data.splits is not None:
        if in_folder:
            return _choose_named(names, data.splits, log)
        log.add_file("data.splits", "names the files of a folder, but the source is one file", "give 'split'")
        log.raise_if_any()
    if data.split is not None or len(names) == 1:
        return Layout({TABLE: tuple(sorted(names))}, data.split or SeededSplit())
    default = NamedSplits()
    if all(_match_names(names, part) for part in PARTS):
        return _choose_named(names, default, log)
    log.add_file(
        "data",
        f"the source holds {list_names(names)}, so it is not clear which is which",
        "name the parts with data.splits, or give data.split to take all of them as one table",
    )
    log.raise_if_any()
    raise AssertionError("a fault was just noted")


def _choose_named(names: Sequence[str], splits: NamedSplits, log: FaultLog) -> Layout:
    parts: dict[str, tuple[str, ...]] = {}
    for part in PARTS:
        wanted: str = getattr(splits, part)
        matches = _match_names(names, wanted)
        if not matches:
            stems = {_SHARD.sub("", _strip_ending(name)) for name in names}
            log.add_file(
                f"data.splits.{part}",
                f"the source has no {shorten(wanted, 40)!r}; it has {list_names(names)}",
                suggest_close(wanted, stems),
            )
        elif len(matches) > 1 and not all(_SHARD.search(_strip_ending(name)) for name in matches):
            log.add_file(
                f"data.splits.{part}",
                f"{shorten(wanted, 40)!r} may be {list_names(matches)}",
                "give the file's full name",
            )
        parts[part] = matches
    log.raise_if_any()
    return Layout(parts, None)


def _match_names(names: Sequence[str], wanted: str) -> tuple[str, ...]:
    if wanted in names:
        return (wanted,)
    stems = {name: _strip_ending(name) for name in names}
    return tuple(sorted(name for name, stem in stems.items() if wanted in (stem, _SHARD.sub("", stem))))


def _strip_ending(name: str) -> str:
    return name.removesuffix(name[-len(ending) :]) if (ending := _find_ending(name)) else name


def _find_ending(name: str) -> str | None:
    lowered = name.lower()
    return next((ending for ending in _ENDINGS if lowered.endswith(ending)), None)
