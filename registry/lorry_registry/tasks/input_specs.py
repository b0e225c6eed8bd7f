"""The inputs of a task: its base and its data."""

import re
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from lorry_registry.errors import InvalidValueError
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.task_section import Section, Share
from lorry_registry.text.addresses import has_secret

BASE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""What the name in ``bases:NAME`` looks like: one part of a path or of a key, and never a hidden one."""

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_NAMED_PREFIX = "bases:"
_NAMED = re.compile(rf"^{_NAMED_PREFIX}{BASE_NAME}$")
_PACKAGE = re.compile(r"^package:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(/\w[\w.-]*)*$")


class BaseSpec(Section):
    """The frozen base model.

    Attributes:
        model: ``package:NAME/FOLDER`` inside an importable package, ``bases:NAME`` in the place of bases that
            each machine has, a folder, or a hub id ``owner/name``.
        revision: The commit of a hub id, 40 hex digits: a branch name would move under a trained adapter.
        fingerprint: The fingerprint that the base must have. It is computed and recorded in any case.
    """

    model: str = Field(min_length=1)
    revision: str | None = None
    fingerprint: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    # Where this process finds a base with a logical name: no part of the task, and in none of its digests.
    _place: BasePlace = PrivateAttr(default=BasePlace())

    def find_in(self, place: BasePlace) -> Self:
        """Return the same base, to be found in a place if it has a logical name."""
        found = self.model_copy()
        found.attach_place(place)
        return found

    def attach_place(self, place: BasePlace) -> None:
        """Set where this process finds the base; for a copy of its own, see :meth:`find_in`."""
        self._place = place

    @property
    def place(self) -> BasePlace:
        """Where it is if it has a logical name."""
        return self._place

    @property
    def is_named(self) -> bool:
        """Whether the base has a logical name, and lies where each machine has its bases."""
        return self.model.startswith(_NAMED_PREFIX)

    @property
    def name(self) -> str:
        """The name of a base that has a logical one, without ``bases:``."""
        return self.model.removeprefix(_NAMED_PREFIX)

    @property
    def is_here(self) -> bool:
        """Whether the base is looked for on this machine's disks alone: nothing is downloaded for it."""
        return self.is_package or self.is_folder or (self.is_named and not self._place.is_remote)

    @property
    def is_package(self) -> bool:
        """Whether the base is a folder of an importable package."""
        return self.model.startswith("package:")

    @property
    def is_folder(self) -> bool:
        """Whether the base is a folder on disk."""
        return self.model.startswith(("/", "./", "../", "~"))

    @model_validator(mode="after")
    def _check_reference(self) -> Self:
        if self.is_package:
            if not _PACKAGE.fullmatch(self.model):
                raise ValueError("must look like package:NAME/FOLDER")
        elif self.is_named:
            if not _NAMED.fullmatch(self.model):
                raise ValueError("must look like bases:NAME: letters, digits, '.', '_' and '-', no folders")
        elif not self.is_folder:
            if not _HUB_ID.fullmatch(self.model):
                raise ValueError(
                    "must be package:NAME/FOLDER, bases:NAME, a folder (./name or /name), "
                    "or a hub id owner/name"
                )
            if self.revision is None or not _COMMIT.fullmatch(self.revision):
                raise ValueError("a hub id needs 'revision', a commit of 40 hex digits")
        return self

    def __eq__(self, other: object) -> bool:
        # Where a machine has its bases does not make two references differ.
        return isinstance(other, BaseSpec) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash((self.model, self.revision, self.fingerprint))


class Columns(Section):
    """The columns of the data.

    Attributes:
        text: The column of the (first) text.
        text_pair: The column of the second text, if the task is about pairs.
        label: The column of the label: a class, or a number for a regression.
    """

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"


class TableFormat(Section):
    """How a table of text is written, as far as its first lines do not show it.

    Attributes:
        encoding: Its encoding, by a name that Python knows; None: UTF-8, or UTF-16 if it looks like it.
        delimiter: What separates the cells of CSV and TSV; None: a comma or a tab, by the file's ending, or
            what separates the cells of its first lines.
        decimal: What stands before the decimal places of labels that are numbers.
    """

    encoding: str | None = None
    delimiter: Literal[",", ";", "\t", "|"] | None = None
    decimal: Literal[".", ","] = "."

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            try:
                "a".encode(encoding)
            except (LookupError, ValueError) as error:
                raise InvalidValueError(
                    "is no encoding of texts that Python knows", "write utf-16 or windows-1252, for example"
                ) from error
        return encoding


class SeededSplit(Section):
    """Shares of one table that are held out, drawn by a seed; equal texts go into the same part.

    Attributes:
        validation: The share of validation.
        test: The share of the test.
        seed: The seed of the draw.
    """

    validation: Share = 0.1
    test: Share = 0.1
    seed: int = 0

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.validation + self.test >= 1.0:
            raise ValueError("validation and test leave nothing to train on")
        if self.test == 0.0 or self.validation == 0.0:
            raise ValueError("validation and test must each be above 0")
        return self


class NamedSplits(Section):
    """The files or hub splits of each part, by name without ending.

    Attributes:
        train: What is trained on.
        validation: What is looked at during training.
        test: What the adapter is judged by.
    """

    train: str = "train"
    validation: str = "validation"
    test: str = "test"


class PartLimits(Section):
    """The largest number of rows used of each part, drawn by a seed.

    Attributes:
        train: Of the training rows; None: all.
        validation: Of the validation rows; None: all.
        test: Of the test rows; None: all.
        seed: The seed of the draw.
    """

    train: Annotated[int, Field(ge=2)] | None = None
    validation: Annotated[int, Field(ge=1)] | None = None
    test: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# What the address of a source that is not on this machine's disk begins with.
REMOTE_PREFIXES = ("hub:", "s3://")


class DataSpec(Section):
    """The data of a task.

    Attributes:
        source: A file or a folder of ``.jsonl``, ``.csv``, ``.tsv`` (also with ``.gz``) or ``.parquet``;
            ``s3://bucket/key``; ``hub:owner/name``.
        revision: The commit of a hub data set.
        columns: The names of the columns.
        split: How one table is divided; give this or ``splits``.
        splits: The names of the parts in a folder or hub data set.
        max_length: The number of tokens to which texts are cut; where a causal base continues a prompt,
            prompt and answer together.
        template: How ``{text}``, ``{text_pair}`` and ``{label}`` are combined to the base's input, for task
            types that put the label into the text; None: the task type's own.
        max_target: The number of tokens to which answers are cut, and that are generated at most.
        limit: The largest number of rows used of each part; which ones depends on the seed and the texts.
        duplicates: What to do with training rows whose text is in validation or test as well.
        format: How a table of text is written, where that cannot be seen.
        on_fault: What to do with rows whose text or label is empty, ``NaN``, ``<NA>`` or ``null``. Those that
            are dropped are counted in the report and the data card; any other fault is refused.
    """

    source: str = Field(min_length=1)
    revision: str | None = None
    columns: Columns = Columns()
    split: SeededSplit | None = None
    splits: NamedSplits | None = None
    max_length: Annotated[int, Field(ge=4, le=131072)] = 128
    template: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    max_target: Annotated[int, Field(ge=1, le=131072)] = 64
    limit: PartLimits = PartLimits()
    duplicates: Literal["drop", "refuse", "keep"] = "drop"
    format: TableFormat | None = None
    on_fault: Literal["refuse", "drop"] = "refuse"

    @property
    def is_local(self) -> bool:
        """Whether the source is on this machine's disk."""
        return not self.source.startswith(REMOTE_PREFIXES)

    @field_validator("source")
    @classmethod
    def _refuse_other_addresses(cls, source: str) -> str:
        if has_secret(source):
            raise InvalidValueError(
                "holds a user, a password or a key, and the source of data is shown and stored",
                "leave it out: credentials for S3 are those of the environment, such as AWS_PROFILE",
            )
        scheme = _SCHEME.match(source)
        if scheme is not None and not source.startswith(REMOTE_PREFIXES):
            raise InvalidValueError(
                f"no data can be read from {scheme.group()}",
                "name a file or a folder, s3://bucket/key or hub:owner/name",
            )
        return source

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.split is not None and self.splits is not None:
            raise ValueError("give 'split' or 'splits', not both")
        if self.source.startswith("hub:"):
            if not _HUB_ID.fullmatch(self.source.removeprefix("hub:")):
                raise ValueError("a hub data set is written hub:owner/name")
            if self.revision is None or not _COMMIT.fullmatch(self.revision):
                raise ValueError("a hub data set needs 'revision', a commit of 40 hex digits")
        return self
