"""Rows as prompts of a base that writes text, and answers as what it is to write, both in tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lorry_components.data.rows import Row
from lorry_components.task_types.input_form import fill_template, list_template_fields
from lorry_registry.errors import Fault, TrainingError, describe_value_error

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LABEL = "{label}"
_MARK = "lorry"
# Templates that write today's date would give another prompt every day, and those of models that think aloud
# would have the answer begin with a thought. What a template does not ask for it ignores.
_CHAT_OPTIONS = {"date_string": "26 Jul 2024", "enable_thinking": False}

Chat = Literal["auto", "always", "never"]


def check_prompt_template(template: str, where: str, *, has_pair: bool) -> Iterator[Fault]:
    """Check a template that the answer follows.

    Args:
        template: The template.
        where: Its field in the task file.
        has_pair: Whether rows have a second text.
    """
    try:
        fields = list_template_fields(template)
    except ValueError as error:
        yield describe_value_error(error, where)
        return
    if "text" not in fields:
        yield Fault(where, "it has no {text}: the base would not see the input")
    if "text_pair" in fields and not has_pair:
        yield Fault(where, "it has {text_pair}, and data.columns.text_pair names no column")
    if has_pair and "text_pair" not in fields:
        yield Fault(where, "it has no {text_pair}: write it, or leave data.columns.text_pair out")
    if "label" in _cut_label(template, fields)[1]:
        yield Fault(where, "the answer follows the prompt: {label} may only stand at its end, or be left out")


def cut_label(template: str) -> str:
    """Return what of a checked template stands before the answer."""
    return _cut_label(template, list_template_fields(template))[0]


def _cut_label(template: str, fields: list[str]) -> tuple[str, list[str]]:
    # A block of YAML ends in a line break.
    ended = template.rstrip()
    if fields and fields[-1] == "label" and ended.endswith(_LABEL):
        return ended.removesuffix(_LABEL), fields[:-1]
    return template, fields


def uses_chat(tokenizer: "PreTrainedTokenizerBase", chat: Chat) -> bool:
    """Return whether prompts become messages to a base's chat template."""
    return chat != "never" and tokenizer.chat_template is not None


@dataclass(slots=True)
class PromptWriter:
    """Writes prompts and answers for one base.

    A prompt that is too long loses the ends of its texts, the longer one first, as pairs do in
    classification; of the template nothing is lost. Cut at its own end it would lose the words that the
    answer follows, and cut at its beginning those that say what to do, and in a chat the opening of the
    message.

    Args:
        tokenizer: The base's.
        template: What stands before the answer.
        is_chat: Whether the template becomes a message to the tokeniser's chat template.
        room: Prompts have so many tokens at most.
        max_target: Answers have so many tokens at most, the one that ends them with the others.
        continues: Whether the answer goes on where the prompt ends, or is a text of its own.
    """

    tokenizer: "PreTrainedTokenizerBase"
    template: str
    is_chat: bool
    room: int
    max_target: int
    continues: bool
    stops: tuple[int, ...] = field(init=False)
    _prompt_ends: tuple[list[int], list[int]] = field(init=False)
    _answer_ends: tuple[list[int], list[int]] = field(init=False)
    _lead: str = field(init=False, default="")

    def __post_init__(self) -> None:
        before, after = _find_special_ends(self.tokenizer)
        end = self._find_end()
        if self.continues:
            self._prompt_ends = ([] if self.is_chat else before, [])
            self._answer_ends = ([], [end])
            self._move_space()
        else:
            self._prompt_ends = (before, after)
            self._answer_ends = (before, after if after[-1:] == [end] else [*after, end])
        own = self.tokenizer.eos_token_id
        self.stops = (end,) if own is None or own == end else (end, own)

    def encode_prompts(self, rows: Sequence[Row]) -> list[list[int]]:
        """Return each row's prompt.

        Raises:
            TrainingError: The template leaves no room for a text.
        """
        encoded = self._encode([self._write(row) for row in rows], self._prompt_ends)
        return [
            # Of an empty text nothing may be left, and a model needs a token to go on from.
            (ids if len(ids) <= self.room else self._shorten(row, len(ids))) or [self.stops[-1]]
            for row, ids in zip(rows, encoded, strict=True)
        ]

    def encode_answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each answer and the token that ends it; one that is cut goes on, and has no end."""
        return [ids[: self.max_target] for ids in self._encode_whole(texts)]

    def measure_answers(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each answer has with the one that ends it, before any is cut."""
        return [len(ids) for ids in self._encode_whole(texts)]

    def decode_answer(self, ids: Sequence[int]) -> str:
        """Return the text of generated tokens, up to the first that ends it."""
        end = next((index for index, token in enumerate(ids) if token in self.stops), len(ids))
        text = self.tokenizer.decode(
            list(ids[:end]), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text).strip()

    def _encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encode([f"{self._lead}{text.strip()}" for text in texts], self._answer_ends)

    def _encode(self, texts: Sequence[str], ends: tuple[list[int], list[int]]) -> list[list[int]]:
        if not texts:
            return []
        encoded: Any = self.tokenizer(list(texts), add_special_tokens=False)
        return [[*ends[0], *ids, *ends[1]] for ids in encoded["input_ids"]]

    def _write(self, fields: Mapping[str, str]) -> str:
        text = fill_template(self.template, fields)
        if not self.is_chat:
            return text
        message = [{"role": "user", "content": text}]
        return _render_chat(self.tokenizer, message, add_generation_prompt=True)

    def _shorten(self, row: Row, length: int) -> list[int]:
        """Return the prompt of a row whose texts are cut until it fits."""
        fields = {name: row[name] for name in ("text", "text_pair") if name in row}
        while length > self.room:
            sizes = {name: len(self._tokenize(text)) for name, text in fields.items()}
            if not any(sizes.values()):
                raise TrainingError(
                    f"the template alone takes {length} tokens, and there is room for {self.room}",
                    where="data.template",
                    todo="raise data.max_length, or write a shorter template",
                )
            for name, size in share_out(sizes, length - self.room).items():
                if size < sizes[name]:
                    fields[name] = self._cut(fields[name], size)
            (ids,) = self._encode([self._write(fields)], self._prompt_ends)
            length = len(ids)
        return ids

    def _tokenize(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _cut(self, text: str, size: int) -> str:
        """Return the beginning of a text: no more than so many tokens, and at least a character less."""
        if size == 0:
            return ""
        if self.tokenizer.is_fast:
            encoded: Any = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            end: int = encoded["offset_mapping"][size - 1][1]
        else:
            end = len(self.tokenizer.decode(self._tokenize(text)[:size]))
        return text[: min(end, len(text) - 1)]

    def _move_space(self) -> None:
        """Give a space at the prompt's end to the answer, where tokenisers have it."""
        bare = self.template.rstrip(" ")
        if self.is_chat or bare == self.template:
            return
        self.template = bare
        pieces: Any = self.tokenizer.convert_ids_to_tokens(self._tokenize("a"))
        # Those of SentencePiece that put a space before every text need none written.
        self._lead = "" if pieces and str(pieces[0]).startswith("▁") else " "

    def _find_end(self) -> int:
        if self.is_chat and (end := _find_chat_end(self.tokenizer)) is not None:
            return end
        for token in (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id):
            if token is not None:
                return int(token)
        raise TrainingError(
            "its tokeniser has no token that ends a text",
            where="base.model",
            todo="name a base that was made to write text",
        )


def share_out(sizes: Mapping[str, int], excess: int) -> dict[str, int]:
    """Return sizes that are smaller by an excess in all, as far as they go: the largest gives first."""
    left = dict(sizes)
    for _ in range(min(excess, sum(left.values()))):
        left[max(left, key=lambda name: left[name])] -= 1
    return left


def _find_special_ends(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Return the tokens that a tokeniser puts before and after a text."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    full: list[int] = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []


def _find_chat_end(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """Return the special token with which a chat template ends an answer."""
    messages = [{"role": "user", "content": _MARK}, {"role": "assistant", "content": _MARK}]
    tail = _render_chat(tokenizer, messages).rpartition(_MARK)[2]
    special = set(tokenizer.all_special_ids)
    special.update(key for key, token in tokenizer.added_tokens_decoder.items() if token.special)
    ids: list[int] = tokenizer(tail, add_special_tokens=False)["input_ids"]
    return next((token for token in ids if token in special), None)


def _render_chat(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **_CHAT_OPTIONS, **options))
    except (TemplateError, ValueError) as error:
        raise TrainingError(
            f"the base's chat template refuses the prompt: {error}".splitlines()[0],
            where="generate.chat",
            todo="write chat: never, and put what the base expects into data.template",
        ) from error
