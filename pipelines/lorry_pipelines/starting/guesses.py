"""From what the columns of a table hold to a task: kind, columns and split, each with its reason."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lorry_components.data.faults import shorten
from lorry_components.data.layout import PARTS
from lorry_components.task_types.question_answering.answer_labels import parse_answers
from lorry_pipelines.starting.column_profile import ColumnProfile, TableProfile, list_values
from lorry_registry.errors import Fault, InvalidTaskError, InvalidValueError, UsageError

CLASSIFICATION, REGRESSION = "text-classification", "regression"
ANSWERS, GENERATION = "question-answering", "text-generation"

_TEXT_NAMES = (
    *("text", "sentence", "sentence1", "premise", "question", "question1", "review", "body", "content"),
    *(
        "message",
        "comment",
        "tweet",
        "document",
        "description",
        "title",
        "utterance",
        "query",
        "input",
        "prompt",
    ),
)
_PAIR_NAMES = (
    *("text_pair", "sentence2", "hypothesis", "question2", "context", "passage", "paragraph", "text2"),
    *("sentence", "title", "summary"),
)
_LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "y", "gold_label", "sentiment", "intent", "topic"),
    *("stars", "rating", "score", "similarity", "quality", "is_duplicate", "answers", "answer", "output"),
    *("completion", "response", "reference", "sql", "spam"),
)
_PLAIN_LABEL_NAMES = ("label", "labels", "class", "target", "y", "gold_label")
# Columns of two texts that stand side by side, by what their names have in common.
_TWINS = re.compile(r"(.*?)[ _-]?(1|2|a|b)$", re.IGNORECASE)
_IDENTIFIER = re.compile(r"(^|[_ -])(id|idx|index|uuid|guid|key|no|nr)$", re.IGNORECASE)
_MOST_CLASSES = 300
_LONG_LABEL_WORDS = 6.0
_LEAST_TEXT_WORDS = 1.6
_FEW_NUMBERS = 12
_CONTEXT_WORDS = 25.0
_TOKENS_PER_WORD = 1.5
_MOST_NAME_WORDS = 5
_LENGTHS = (32, 64, 128, 256, 512)
# As many test rows tell a gain of some hundredths, and fewer than 30 nothing at all.
_WANTED_TEST_ROWS, _LEAST_SHARE, _LARGEST_SHARE = 200, 0.1, 0.25


@dataclass(frozen=True, slots=True)
class Guess:
    """One choice: what it is about, what was chosen, and why; ``is_sure`` if nothing else comes near it."""

    about: str
    choice: str
    why: str
    is_sure: bool = True


@dataclass(frozen=True, slots=True)
class TaskGuess:
    """A task that fits a table.

    Attributes:
        kind: The task type.
        text: The column of the text.
        text_pair: The column of the second text; None: there is one text.
        label: The column of the label.
        split: Shares of one table; None: the folder has its parts.
        max_length: To how many tokens texts are cut.
        guesses: Each choice with its reason.
        decimal: What stands before the decimal places of labels.
        drops_gaps: Whether rows without a text or a label are left out.
    """

    kind: str
    text: str
    text_pair: str | None
    label: str
    split: dict[str, float] | None
    max_length: int
    guesses: tuple[Guess, ...]
    decimal: str = "."
    drops_gaps: bool = False


@dataclass(frozen=True, slots=True)
class ColumnHints:
    """What the person said; None: guess it."""

    kind: str | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None


NO_HINTS = ColumnHints()


def guess_task(table: TableProfile, hints: ColumnHints = NO_HINTS) -> TaskGuess:
    """Return the task that a table is most likely for.

    Args:
        table: The table.
        hints: What is not to be guessed.

    Raises:
        InvalidTaskError: A column that was named is not there.
        UsageError: No column looks like a text, or none like a label.
    """
    _check_header(table)
    _check_hints(table, hints)
    label = _choose_label(table, hints)
    texts = _choose_texts(table, hints, label)
    text, pair = texts[0], texts[1] if len(texts) > 1 else None
    kind = _choose_kind(table, hints, label, pair)
    shown = [
        _explain_text(text, hints),
        *([_explain_pair(pair, hints)] if pair else []),
        _explain_label(table, label, hints, text, pair),
        kind,
        _explain_labels(label, kind.choice),
    ]
    split, split_guess = _choose_split(table)
    max_length, length_guess = _choose_length(text, pair, label if kind.choice == GENERATION else None)
    gaps = _explain_gaps(table, label, *texts)
    if gaps:
        shown.append(gaps)
    ignored = [
        column.name
        for column in table.columns
        if column.name not in (text.name, label.name, pair.name if pair else None)
    ]
    if ignored:
        shown.append(Guess("other columns", ", ".join(ignored), "they are not read"))
    return TaskGuess(
        kind=kind.choice,
        text=text.name,
        text_pair=pair.name if pair else None,
        label=label.name,
        split=split,
        max_length=max_length,
        guesses=(*(guess for guess in shown if guess), split_guess, length_guess),
        decimal=label.decimal if kind.choice == REGRESSION else ".",
        drops_gaps=gaps is not None,
    )


def list_label_candidates(table: TableProfile) -> list[str]:
    """Return the columns that may be the label, the most likely one first."""
    return [column.name for column in _rank_labels(table)]


def _check_header(table: TableProfile) -> None:
    """Refuse a table whose first line is a row: it would be lost, and its cells taken for names."""
    texts = [column.name for column in table.columns if len(column.name.split()) > _MOST_NAME_WORDS]
    if texts:
        raise UsageError(
            f"its first line is a row and not the names of columns: {shorten(repr(texts[0]), 60)}",
            where="the table",
            todo="put a line with names above it, such as: text,label",
        )


def _check_hints(table: TableProfile, hints: ColumnHints) -> None:
    known = [column.name for column in table.columns]
    wrong = [name for name in (hints.text, hints.text_pair, hints.label) if name and name not in known]
    if wrong:
        listed = ", ".join(shorten(name, 40) for name in known)
        raise InvalidTaskError(
            "the table",
            [Fault(name, "there is no such column", f"there are: {listed}") for name in wrong],
        )


# The label


def _choose_label(table: TableProfile, hints: ColumnHints) -> ColumnProfile:
    if hints.label:
        return _require(table, hints.label)
    ranked = [column for column in _rank_labels(table) if column.name not in (hints.text, hints.text_pair)]
    if not ranked:
        raise UsageError(
            f"no column looks like a label among: {', '.join(column.name for column in table.columns)}",
            where="the table",
            todo="name it with --label, or add one: the right answer for each text",
        )
    return ranked[0]


def _rank_labels(table: TableProfile) -> list[ColumnProfile]:
    ranked = sorted(
        (column for column in table.columns if column.rows and _rate_label(column, table) > 0),
        key=lambda column: -_rate_label(column, table),
    )
    # Some column has to remain for the text.
    return ranked if len(table.columns) > 1 else []


def _rate_label(column: ColumnProfile, table: TableProfile) -> float:
    name = column.name.casefold()
    rate = 0.0
    if name in _LABEL_NAMES:
        rate += 3.0 - 0.05 * _LABEL_NAMES.index(name)
    elif any(name.endswith(f"_{known}") or name.startswith(f"{known}_") for known in _LABEL_NAMES):
        rate += 1.2
    if column.rows < table.rows * 0.5:
        rate -= 2.0
    if _IDENTIFIER.search(column.name) or (column.distinct == column.rows and column.are_whole):
        return rate - 3.0
    if column.distinct < 2:
        return rate - 2.0
    if _is_class_like(column, table):
        # The fewer the classes, the more rows there are of each.
        rate += 1.5 - 0.2 * math.log10(column.distinct)
    elif column.are_numbers:
        rate += 0.8
    return rate


def _is_class_like(column: ColumnProfile, table: TableProfile) -> bool:
    if column.are_structures or column.mean_words > _LONG_LABEL_WORDS:
        return False
    if column.are_numbers and not column.are_whole:
        return False
    return 2 <= column.distinct <= min(_MOST_CLASSES, max(2, table.rows // 4))


def _explain_label(
    table: TableProfile,
    label: ColumnProfile,
    hints: ColumnHints,
    text: ColumnProfile,
    pair: ColumnProfile | None,
) -> Guess:
    if hints.label:
        return Guess("label", label.name, "you said so")
    # Beside a column that is called so, another has to have some likeness to a label by its name, too.
    share = 0.5 if label.name.casefold() in _PLAIN_LABEL_NAMES else 0.2
    taken = {text.name, pair.name if pair else None, label.name}
    rivals = [
        column.name
        for column in _rank_labels(table)
        if column.name not in taken
        and _rate_label(column, table) > share * _rate_label(label, table)
        and (_is_class_like(column, table) or column.are_numbers)
        and not (pair and _are_answers(table, label, pair))
    ]
    why = (
        "it is called so"
        if label.name.casefold() in _LABEL_NAMES
        else f"it has {_count_distinct(label)} different values in {label.rows:,} rows"
    )
    other = f"; it may also be {' or '.join(rivals[:3])}: --label" if rivals else ""
    return Guess("label", label.name, why + other, is_sure=not rivals)


def _explain_gaps(table: TableProfile, *columns: ColumnProfile) -> Guess | None:
    lacking = [
        f"{column.name!r} is missing in {table.rows - column.rows:,}"
        for column in columns
        if column.rows < table.rows
    ]
    if not lacking:
        return None
    why = (
        f"of {table.rows:,} rows, {' and '.join(lacking)}; by default (data.on_fault: refuse) they are faults"
    )
    return Guess("rows with gaps", "left out", why, is_sure=False)


# The texts


def _choose_texts(table: TableProfile, hints: ColumnHints, label: ColumnProfile) -> list[ColumnProfile]:
    if hints.text:
        return [
            _require(table, hints.text),
            *([_require(table, hints.text_pair)] if hints.text_pair else []),
        ]
    ranked = sorted(
        (
            column
            for column in table.columns
            if column is not label and column.name != hints.text_pair and _rate_text(column) > 0
        ),
        key=lambda column: -_rate_text(column),
    )
    if not ranked:
        raise UsageError(
            "no column looks like a text beside the label " + shorten(repr(label.name), 40),
            where="the table",
            todo="name it with --text",
        )
    text = ranked[0]
    if hints.text_pair:
        return [text, _require(table, hints.text_pair)]
    pair = next((column for column in ranked[1:] if _is_pair(text, column)), None)
    if pair is None:
        return [text]
    return sorted((text, pair), key=lambda column: _place_of_text(column, table))


def _rate_text(column: ColumnProfile) -> float:
    name = column.name.casefold()
    if column.are_numbers or column.are_structures or _IDENTIFIER.search(column.name):
        return 0.0
    is_named = name in _TEXT_NAMES or name in _PAIR_NAMES
    if column.mean_words < _LEAST_TEXT_WORDS and not is_named:
        return 0.0
    is_varied = column.distinct / max(1, min(column.rows, 5_000))
    rate = min(column.mean_words, 30.0) / 15.0 + is_varied
    return rate + (3.0 - 0.05 * _TEXT_NAMES.index(name) if name in _TEXT_NAMES else 1.5 if is_named else 0.0)


def _is_pair(text: ColumnProfile, other: ColumnProfile) -> bool:
    first, second = text.name.casefold(), other.name.casefold()
    one, two = _TWINS.fullmatch(first), _TWINS.fullmatch(second)
    if one and two and one[1] == two[1]:
        return True
    names = {first, second}
    return any(
        names == {known, pair}
        for known, pair in (
            *(("text", "text_pair"), ("premise", "hypothesis"), ("question", "context")),
            *(("question", "passage"), ("question", "sentence"), ("question", "paragraph")),
            *(("query", "passage"), ("query", "document"), ("text", "text2")),
        )
    )


def _place_of_text(column: ColumnProfile, table: TableProfile) -> tuple[int, int]:
    name = column.name.casefold()
    # A question is about what stands beside it, wherever the columns are.
    is_second = name in ("context", "passage", "paragraph", "document") or name == "sentence"
    return (int(is_second), table.columns.index(column))


def _explain_text(text: ColumnProfile, hints: ColumnHints) -> Guess:
    why = "you said so" if hints.text else f"its texts have {text.mean_words:.0f} words on average"
    return Guess("text", text.name, why)


def _explain_pair(pair: ColumnProfile, hints: ColumnHints) -> Guess:
    why = "you said so" if hints.text_pair else "it stands beside the first text as its other half"
    return Guess("second text", pair.name, why)


# The kind


def _choose_kind(
    table: TableProfile, hints: ColumnHints, label: ColumnProfile, pair: ColumnProfile | None
) -> Guess:
    if hints.kind:
        return Guess("kind", hints.kind, "you said so")
    if label.distinct == 1:
        raise UsageError(
            f"{label.name!r} has the same value in each of its {label.rows:,} rows, "
            f"{shorten(next(iter(label.values)), 40)!r}: there is nothing to learn",
            where="the table",
            todo="name another column with --label",
        )
    if pair is not None and _are_answers(table, label, pair):
        return Guess("kind", ANSWERS, f"the answers in {label.name!r} stand in the texts of {pair.name!r}")
    if label.are_numbers and not label.are_whole:
        return Guess("kind", REGRESSION, f"{label.name!r} holds numbers with digits after the point")
    if label.are_whole and label.distinct > _FEW_NUMBERS:
        return Guess("kind", REGRESSION, f"{label.name!r} holds {_count_distinct(label)} different numbers")
    if _is_class_like(label, table):
        is_ordered = label.are_whole and label.distinct > 2
        why = f"{label.name!r} holds {_count_distinct(label)} different values"
        hint = "; if 4 is nearer to 5 than 1 is, regression suits as well: --kind regression"
        return Guess("kind", CLASSIFICATION, why + (hint if is_ordered else ""), is_sure=not is_ordered)
    if label.mean_words < _LEAST_TEXT_WORDS and not label.are_structures:
        raise UsageError(
            f"{label.name!r} holds neither classes nor numbers nor texts to be written, but "
            f"{_count_distinct(label)} different values in {label.rows:,} rows, such as "
            f"{', '.join(repr(shorten(value, 20)) for value, _ in list_values(label, 3))}",
            where="the table",
            todo="if they are numbers, correct what is none; or name another column with --label, or say "
            "what they are with --kind",
        )
    return Guess(
        "kind",
        GENERATION,
        f"{label.name!r} holds texts of its own, {label.mean_words:.0f} words on average, to be written",
    )


def _are_answers(table: TableProfile, label: ColumnProfile, pair: ColumnProfile) -> bool:
    if pair.mean_words < _CONTEXT_WORDS:
        return False
    checked = found = 0
    for row in table.sample[:500]:
        context, raw = row.get(pair.name), row.get(label.name)
        if not isinstance(context, str) or raw is None:
            continue
        checked += 1
        try:
            answers = parse_answers(raw)
        except (InvalidValueError, ValueError):
            continue
        # A class such as "no" stands in many a text by chance: answers differ from row to row.
        found += all(answer.text in context for answer in answers)
    return checked > 0 and found >= 0.95 * checked and label.distinct > min(checked, label.rows) / 4


def _explain_labels(label: ColumnProfile, kind: str) -> Guess | None:
    if kind != CLASSIFICATION:
        return None
    listed = [f"{shorten(value, 30)} {count / label.rows:.0%}" for value, count in list_values(label, 6)]
    more = label.distinct - len(listed)
    text = ", ".join([*listed, *([f"and {more:,} more"] if more > 0 else [])])
    rarest = min(label.values.values(), default=0)
    why = "their shares of the rows"
    if rarest < 10:
        why += f"; the rarest has {rarest} row{'' if rarest == 1 else 's'}, too few to learn and to measure"
    return Guess("classes", text, why, is_sure=rarest >= 10)


# Parts and lengths


def _choose_split(table: TableProfile) -> tuple[dict[str, float] | None, Guess]:
    stems = {name.partition(".")[0] for name in table.files}
    if table.in_folder and all(part in stems for part in PARTS):
        return None, Guess("split", "the folder's own", "it has files for train, validation and test")
    share = round(min(_LARGEST_SHARE, max(_LEAST_SHARE, _WANTED_TEST_ROWS / table.rows)), 2)
    validation = round(min(0.15, share), 2)
    rows = round(table.rows * share)
    at_least = "" if table.is_whole else "at least "
    why = (
        f"{share:.0%} are {at_least}{rows:,} rows to test on, "
        + (
            "enough to tell"
            if rows >= _WANTED_TEST_ROWS * 0.9
            else "few: scores will be rough, and hardly tell"
        )
        + " a better adapter from a worse one; equal texts stay on one side"
    )
    choice = f"{validation:.0%} validation, {share:.0%} test"
    return {"validation": validation, "test": share}, Guess("split", choice, why, is_sure=rows >= 30)


def _choose_length(
    text: ColumnProfile, pair: ColumnProfile | None, answer: ColumnProfile | None
) -> tuple[int, Guess]:
    words = sum(column.p99_words for column in (text, pair, answer) if column)
    tokens = round(words * _TOKENS_PER_WORD) + 4
    chosen = next((length for length in _LENGTHS if length >= tokens), _LENGTHS[-1])
    why = f"99 % of the texts have at most {words:.0f} words, some {tokens:,} tokens"
    if tokens > _LENGTHS[-1]:
        why += "; longer ones are cut, and the base reads no more than it was made for"
    return chosen, Guess("length", f"{chosen} tokens", why, is_sure=tokens <= _LENGTHS[-1])


def _require(table: TableProfile, name: str) -> ColumnProfile:
    column = table.find(name)
    assert column is not None, "hints are checked before"
    return column


def _count_distinct(column: ColumnProfile) -> str:
    return f"{column.distinct:,}" if column.distinct < 5_000 else "5,000 or more"


def find_unsure(guesses: Sequence[Guess]) -> list[Guess]:
    """Return the guesses that something else comes near."""
    return [guess for guess in guesses if not guess.is_sure]
