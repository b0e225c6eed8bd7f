"""Extractive question answering: the piece of a context that answers a question, or that none does.

A head of two outputs a token scores where an answer starts and where it ends (Devlin et al. 2019,
https://arxiv.org/abs/1810.04805, section 4.2). Contexts longer than the base takes are read in overlapping
windows. In a window without the answer both point at the token that stands for the whole input: "there is
none here".
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorry_components.data.rows import DataForm, Label, Row
from lorry_components.metrics.base import Prediction, Target
from lorry_components.metrics.squad import compute_exact_match, compute_f1, make_answer_metric, score_answers
from lorry_components.models.model_family import has_class, is_encoder_decoder, pools_last_token
from lorry_components.plot_style import COLOURS
from lorry_components.task_types.base import Features, Outputs, Report
from lorry_components.task_types.question_answering.answer_labels import (
    choose_span,
    find_answer_fault,
    list_truths,
    parse_answers,
    read_answers,
    write_answers,
)
from lorry_components.task_types.question_answering.windows import (
    Window,
    check_questions,
    check_tokenizer,
    cut_windows,
    shorten_questions,
)
from lorry_components.task_types.text_head import TextHeadTaskType
from lorry_components.task_types.training_form import TrainingForm
from lorry_components.task_types.trivial_answers import COMMON_ANSWER, find_common_answer, find_most_common
from lorry_registry.errors import Fault
from lorry_registry.tasks.input_specs import DataSpec
from lorry_registry.text.sizes import format_probability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_BATCH_WINDOWS = 32
# Sorted by length among so many; progress is reported after each of them.
_WINDOWS_AT_ONCE = 128
# Of each window and of each row, as BERT's own script has it.
_BEST_SPANS = 20
_NUMBERS = 6
_SHOWN_CHARACTERS = 60
# The groups of the plot: the most words of an answer.
_LENGTHS = {"none": 0, "1": 1, "2": 2, "3-4": 4, "5-8": 8, "9 or more": math.inf}


@dataclass(slots=True)
class _Reading:
    """What the windows of one row say.

    Attributes:
        context: The row's context.
        nothing: The least score of "there is none here": where one window has the answer, the others do not
            count.
        spans: The characters of each possible answer, and its highest score.
    """

    context: str
    nothing: float = math.inf
    spans: dict[tuple[int, int], float] = field(default_factory=dict)

    def add(self, window: Window, starts: Outputs, ends: Outputs, longest: int) -> None:
        """Take note of a window's best spans."""
        self.nothing = min(self.nothing, float(starts[window.nothing] + ends[window.nothing]))
        for span, score in rank_spans(window, starts, ends, longest):
            start, end = _strip_span(self.context, span)
            if start < end:
                self.spans[start, end] = max(score, self.spans.get((start, end), -math.inf))

    def decide(self) -> Prediction:
        """Return the likeliest span, or the empty answer where none is likelier."""
        ranked = sorted(self.spans.items(), key=lambda item: (-item[1], item[0]))[:_BEST_SPANS]
        scores = np.asarray([self.nothing, *(score for _, score in ranked)])
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        if not ranked or self.nothing > ranked[0][1]:
            return _make_prediction("", 0, 0, shares[0], shares[0])
        (start, end), _ = ranked[0]
        return _make_prediction(self.context[start:end], start, end, shares[1], shares[0])


class QuestionAnswering(TextHeadTaskType):
    """The piece of a context that answers a question, learned as the tokens at which it starts and ends."""

    name = "question-answering"
    summary = "the piece of a context that answers a question, or none"
    model_class = "AutoModelForQuestionAnswering"
    data_form = DataForm("text", by_context=True)
    training_form = TrainingForm(label_names=("start_positions", "end_positions"))
    metrics = {
        "f1": make_answer_metric(compute_f1, list_truths),
        "exact_match": make_answer_metric(compute_exact_match, list_truths),
    }
    primary = "f1"
    row_metric = "f1"
    peft_task_type = "QUESTION_ANS"
    prediction_fields = {
        "answer": "string",
        "score": "double",
        "start": "long",
        "end": "long",
        "no_answer": "double",
    }

    @classmethod
    def check_data(cls, data: DataSpec) -> Iterator[Fault]:
        """Check that each row has a context."""
        yield from super().check_data(data)
        if data.columns.text_pair is None:
            yield Fault("data.columns.text_pair", f"is missing: {cls.name} needs the column of the context")

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base has such a head, and sees what follows a word."""
        if not has_class(config, "QUESTION_ANSWERING"):
            yield Fault(
                "base.model",
                f"transformers has no such head for {config.model_type}",
                "choose an encoder, such as BERT, RoBERTa or DeBERTa",
            )
        elif pools_last_token(config) and not is_encoder_decoder(config):
            # A decoder behind an encoder sees all of the input through it.
            yield Fault(
                "base.model",
                f"{config.model_type} reads from left to right, and cannot predict where an answer starts "
                "before it has read its end",
                "choose an encoder, such as RoBERTa, or the kind text-generation",
            )

    def check_folder(self, folder: Path) -> Iterator[Fault]:
        """Check that the base's tokeniser knows where a word stands in a text."""
        from transformers import AutoTokenizer

        yield from check_tokenizer(AutoTokenizer.from_pretrained(folder, local_files_only=True))

    # The data

    def parse_label(self, raw: object) -> str:
        """Accept answers in any form that :func:`parse_answers` reads."""
        return write_answers(parse_answers(raw))

    def find_fault(self, row: Row, label: Label) -> str:
        """Say which answer does not stand where it should in its context."""
        return find_answer_fault(row["text_pair"], read_answers(label))

    def spell_label(self, label: Label) -> str:
        """Return the first answer; nothing where there is none."""
        return next((answer.text for answer in read_answers(label)), "")

    def check_rows(self, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row]) -> None:
        """Refuse questions that leave too little of a window to their context."""
        check_questions(tokenizer, rows, self.form.max_length)

    # Training

    def describe_head(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Return two outputs a token: how well the answer starts with it, and how well it ends there."""
        return {"num_labels": 2}

    def encode_examples(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[Row],
        targets: Sequence[Label],
        labels: Sequence[str] | None,
    ) -> list[Features]:
        """Return the windows of all rows, each with the tokens at which its answer starts and ends."""
        self.check_rows(tokenizer, rows)
        spans = [
            choose_span(row["text_pair"], read_answers(target))
            for row, target in zip(rows, targets, strict=True)
        ]
        encoded = []
        for window in cut_windows(tokenizer, rows, self.form.max_length):
            span = spans[window.row]
            start, end = (window.nothing, window.nothing) if span is None else window.locate(*span)
            encoded.append({**window.features, "start_positions": start, "end_positions": end})
        return encoded

    def build_collator(self, tokenizer: "PreTrainedTokenizerBase") -> Callable[[list[Features]], Any]:
        """Pad behind the longest window of a batch, so that positions stay what they are."""
        return partial(_pad, tokenizer)

    # Prediction

    def compute_outputs(
        self,
        model: "nn.Module",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> Outputs:
        """Return six numbers a row, regardless of its length.

        They are the scores of start and end at the token for no answer, their maxima over the context and
        their means over it, each as the mean of the row's windows. A question that is too long is cut: these
        numbers serve to distinguish models.
        """
        rows = shorten_questions(tokenizer, rows, self.form.max_length)
        outputs = np.zeros((len(rows), _NUMBERS), dtype=np.float32)
        counts = np.zeros((len(rows), 1), dtype=np.float32)
        for window, starts, ends in self._run(model, tokenizer, rows, report):
            outputs[window.row] += _summarise(window, starts, ends)
            counts[window.row] += 1
        outputs /= np.maximum(counts, 1)
        return outputs

    def predict(
        self,
        model: "nn.Module",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> list[Prediction]:
        """Return one answer a row.

        Each is ``{"answer": text, "score": its share, "start": character, "end": character after it,
        "no_answer": share}``. The text is empty where no piece of at most ``data.max_target`` tokens is
        likelier than that there is none. Shares are among the 20 likeliest pieces and no answer.
        """
        self.check_rows(tokenizer, rows)
        readings = [_Reading(row["text_pair"]) for row in rows]
        for window, starts, ends in self._run(model, tokenizer, rows, report):
            readings[window.row].add(window, starts, ends, self.form.max_target)
        return [reading.decide() for reading in readings]

    def _run(
        self,
        model: "nn.Module",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[Row],
        report: Report,
    ) -> Iterator[tuple[Window, Outputs, Outputs]]:
        """Yield every window with the scores of its tokens, those of similar length after one another."""
        import torch

        device = next(model.parameters()).device
        windows = cut_windows(tokenizer, rows, self.form.max_length)
        while group := list(islice(windows, _WINDOWS_AT_ONCE)):
            last = group[-1].row
            group.sort(key=lambda window: len(window.features["input_ids"]))
            for offset in range(0, len(group), _BATCH_WINDOWS):
                chosen = group[offset : offset + _BATCH_WINDOWS]
                batch = _pad(tokenizer, [window.features for window in chosen]).to(device)
                with torch.inference_mode():
                    scored = model(**batch)
                starts, ends = (
                    scores.float().cpu().numpy() for scores in (scored.start_logits, scored.end_logits)
                )
                yield from zip(chosen, starts, ends, strict=True)
            # Further windows of the last row may follow.
            report(last)
        report(len(rows))

    def describe_prediction(self, prediction: Prediction) -> str:
        """Return the answer and its share."""
        answer: str = prediction["answer"]
        short = answer if len(answer) <= _SHOWN_CHARACTERS else f"{answer[: _SHOWN_CHARACTERS - 1]}…"
        return f"{short or 'no answer'} ({format_probability(prediction['score'])})"

    def find_single_answer(self, targets: Sequence[Target], predictions: Sequence[Prediction]) -> str | None:
        """Return the answer of all predictions, where no answer is right for all questions."""
        truths = [tuple(list_truths(target)) for target in targets]
        return find_common_answer(truths, [prediction["answer"] for prediction in predictions])

    def predict_trivially(
        self,
        rows: Sequence[Row],
        answers: Sequence[Label],
        labels: Sequence[str] | None,
    ) -> dict[str, list[Prediction]]:
        """Answer with what most training rows have, which may be that there is no answer."""
        common = find_most_common([self.spell_label(answer) for answer in answers])
        return {COMMON_ANSWER: [{"answer": common}] * len(rows)}

    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> None:
        """Draw F1 and the share of exact matches by the number of words of the shortest right answer."""
        truths = [list_truths(target) for target in targets]
        words = np.asarray([min(len(text.split()) for text in texts) for texts in truths])
        groups = np.searchsorted(list(_LENGTHS.values()), words)
        shown = [index for index in range(len(_LENGTHS)) if (groups == index).any()]
        kinds = ((-0.2, "F1", compute_f1), (0.2, "exact match", compute_exact_match))
        for colour, (shift, label, compute) in zip(COLOURS, kinds, strict=False):
            scores = np.asarray(score_answers(compute, truths, predictions))
            means = [scores[groups == index].mean() for index in shown]
            axes.bar(np.arange(len(shown)) + shift, means, width=0.4, label=label, color=colour)
        names = list(_LENGTHS)
        axes.set_xticks(
            range(len(shown)), [f"{names[index]}\nn = {(groups == index).sum()}" for index in shown]
        )
        axes.set_ylim(0.0, 1.0)
        axes.set_xlabel("words of the right answer")
        axes.set_ylabel("mean over the questions")
        axes.legend(frameon=False)


def rank_spans(
    window: Window, starts: Outputs, ends: Outputs, longest: int
) -> Iterator[tuple[tuple[int, int], float]]:
    """Yield the characters and the score of the best spans of a window's context, in no order.

    Args:
        window: The window.
        starts: The score of each of its tokens as the first of the answer, padding behind them.
        ends: The same as the last.
        longest: The most tokens of a span.
    """
    count = len(window.characters)
    if not count:
        return
    longest = min(longest, count)
    here = slice(window.first, window.first + count)
    beyond = np.full(longest - 1, -np.inf, dtype=np.float32)
    # Shape (tokens, longest): by the token at which a span starts, and how many further ones it has.
    reach = np.lib.stride_tricks.sliding_window_view(np.concatenate([ends[here], beyond]), longest)
    scores: NDArray[np.float32] = (starts[here, None] + reach).ravel()
    kept = min(_BEST_SPANS, len(scores))
    for index in np.argpartition(-scores, kept - 1)[:kept]:
        if np.isfinite(scores[index]):
            start, further = divmod(int(index), longest)
            span = (int(window.characters[start, 0]), int(window.characters[start + further, 1]))
            yield span, float(scores[index])


def _summarise(window: Window, starts: Outputs, ends: Outputs) -> list[float]:
    here = slice(window.first, window.first + len(window.characters))
    parts = [starts[here], ends[here]] if len(window.characters) else [np.zeros(1), np.zeros(1)]
    return [
        float(starts[window.nothing]),
        float(ends[window.nothing]),
        *(float(part.max()) for part in parts),
        *(float(part.mean()) for part in parts),
    ]


def _strip_span(context: str, span: tuple[int, int]) -> tuple[int, int]:
    """Return a span without the white space around it: some tokens start with the blank before a word."""
    text = context[slice(*span)]
    start = span[0] + len(text) - len(text.lstrip())
    return start, max(start, span[0] + len(text.rstrip()))


def _make_prediction(answer: str, start: int, end: int, score: float, no_answer: float) -> Prediction:
    return {
        "answer": answer,
        "score": float(score),
        "start": start,
        "end": end,
        "no_answer": float(no_answer),
    }


def _pad(tokenizer: "PreTrainedTokenizerBase", features: Sequence[Features]) -> Any:
    return tokenizer.pad(list(features), padding_side="right", return_tensors="pt")
