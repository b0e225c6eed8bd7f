"""Knowledge probing: what a base knows of a subject, asked by a cloze.

As in LAMA (Petroni et al. 2019, https://arxiv.org/abs/1909.01066): a template names the subject, ``{text}``,
and the place of the object, ``{label}``; a masked base reads a mask there, a left-to-right base predicts the
token that comes next; the answer is any token of the vocabulary, and precision at 1 says how often the first
is right. As in LAMA and P-tuning objects are single tokens: an object of several is left out of training, and
counts as wrong in evaluation, no matter what is predicted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lorry_components.data.rows import Label, Row
from lorry_components.data.templates import count_soft_tokens, have_same_words, list_slots, parse_template
from lorry_components.metrics.base import Prediction, Target
from lorry_components.metrics.ranking import (
    find_ranks,
    score_mrr,
    score_precision_at_1,
    score_precision_at_10,
)
from lorry_components.plot_style import OWN
from lorry_components.task_types.base import Outputs, Report, gather_targets
from lorry_components.task_types.cloze.base import ClozeTaskType
from lorry_components.task_types.cloze.reader import ClozeReader
from lorry_components.task_types.trivial_answers import COMMON_ANSWER, find_common_answer
from lorry_registry.errors import Fault, describe_value_error
from lorry_registry.text.sizes import format_probability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import nn

_RANKED = 10
_SHOWN_NUMBERS = 32
_EXAMPLE = "write what the base reads, such as '{text} is located in {label} .'"


class KnowledgeProbing(ClozeTaskType):
    """The token that a base puts in the place of an object."""

    name = "knowledge-probing"
    summary = "the word that a base puts in the place of an object (a cloze)"
    metrics = {"p_at_1": score_precision_at_1, "p_at_10": score_precision_at_10, "mrr": score_mrr}
    primary = "p_at_1"
    row_metric = "mrr"
    prediction_fields = {"label": "string", "score": "double", "top": "string"}

    # The data

    @classmethod
    def check_template(cls, template: str | None, *, has_pair: bool) -> Iterator[Fault]:
        """Check that the template has a place for the subject and one for the object."""
        if template is None:
            yield Fault("data.template", f"is missing: {_EXAMPLE}")
            return
        try:
            parts = parse_template(template)
        except ValueError as error:
            yield describe_value_error(error, "data.template")
            return
        if count_soft_tokens(parts):
            yield Fault(
                "data.template",
                "has soft tokens, [P]",
                "put them into the template of p-tuning: method.template",
            )
        yield from _check_slots(list_slots(parts), "data.template", has_pair=has_pair)

    @classmethod
    def check_soft_template(
        cls, soft_template: str, template: str | None, *, has_pair: bool
    ) -> Iterator[Fault]:
        """Check that the method's template is the task's, but for its soft tokens."""
        slots = list_slots(parse_template(soft_template))
        yield from _check_slots(slots, "method.template", has_pair=has_pair)
        if template is not None and not have_same_words(soft_template, template):
            yield Fault(
                "method.template",
                f"has other words than data.template, {template!r}",
                "add nothing but [P] to them",
            )

    def parse_label(self, raw: object) -> str:
        """Accept text."""
        if not isinstance(raw, str) or not raw.strip():
            raise ValueError(f"{raw!r} is not the name of an object")
        return raw.strip()

    # Prediction

    def compute_outputs(
        self,
        model: "nn.Module",
        reader: ClozeReader,
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> Outputs:
        """Return log-probabilities of some tokens, evenly spread over the vocabulary."""
        outputs = np.zeros((len(rows), _SHOWN_NUMBERS), dtype=np.float32)
        done = 0
        for chosen, logits in self.compute_logits(model, reader, rows):
            spread = np.linspace(0, logits.shape[1] - 1, _SHOWN_NUMBERS).astype(int)
            outputs[chosen] = logits.log_softmax(-1)[:, spread].cpu().numpy()
            done += len(chosen)
            report(done)
        return outputs

    def predict(
        self,
        model: "nn.Module",
        reader: ClozeReader,
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> list[Prediction]:
        """Return ``{"label": token, "score": probability, "top": [[token, probability], ...]}`` a row.

        ``top`` holds the ten likeliest tokens of the whole vocabulary.
        """
        predictions: list[Prediction] = [{} for _ in rows]
        names: dict[int, str] = {}
        done = 0
        for chosen, logits in self.compute_logits(model, reader, rows):
            best = logits.softmax(-1).topk(min(_RANKED, logits.shape[1]))
            for index, shares, tokens in zip(
                chosen, best.values.tolist(), best.indices.tolist(), strict=True
            ):
                for token in tokens:
                    names.setdefault(token, str(reader.tokenizer.decode([token])).strip())
                top = [[names[token], share] for token, share in zip(tokens, shares, strict=True)]
                predictions[index] = {"label": top[0][0], "score": top[0][1], "top": top}
            done += len(chosen)
            report(done)
        return predictions

    def describe_prediction(self, prediction: Prediction) -> str:
        """Return the token and its probability."""
        return f"{prediction['label']} ({format_probability(prediction['score'])})"

    # Evaluation

    def group_targets(self, rows: Sequence[Row], targets: Sequence[Label]) -> tuple[list[Row], list[Target]]:
        """Ask once for a subject with several objects: each of them is right."""
        gathered = gather_targets(rows, targets)
        return [row for row, _ in gathered], [tuple(dict.fromkeys(labels)) for _, labels in gathered]

    def find_single_answer(self, targets: Sequence[Target], predictions: Sequence[Prediction]) -> str | None:
        """Return the token of all predictions, where no object is right for all subjects."""
        return find_common_answer(targets, [str(prediction["label"]) for prediction in predictions])

    def predict_trivially(
        self,
        rows: Sequence[Row],
        answers: Sequence[Label],
        labels: Sequence[str] | None,
    ) -> dict[str, list[Prediction]]:
        """Answer with the objects that most training rows have."""
        top = [[str(name), count / len(answers)] for name, count in Counter(answers).most_common(_RANKED)]
        return {COMMON_ANSWER: [{"label": top[0][0], "score": top[0][1], "top": top}] * len(rows)}

    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> None:
        """Draw the precision at 1 to 10."""
        ranks = find_ranks(targets, predictions)
        counts = list(range(1, _RANKED + 1))
        axes.plot(
            counts, [float(np.mean(ranks <= count)) for count in counts], marker="o", color=OWN, clip_on=False
        )
        axes.set_xticks(counts)
        axes.set_ylim(0.0, 1.0)
        axes.set_xlabel("tokens looked at")
        axes.set_ylabel("share of rows with a right one")


def _check_slots(slots: Sequence[str], where: str, *, has_pair: bool) -> Iterator[Fault]:
    if "text" not in slots:
        yield Fault(where, "has no {text}, the place of the subject", _EXAMPLE)
    if "label" not in slots:
        yield Fault(where, "has no {label}, the place of the object", _EXAMPLE)
    if slots.count("label") > 1:
        yield Fault(where, "has {label} more than once", "keep one: the object has one place")
    if "text_pair" in slots and not has_pair:
        yield Fault(where, "has {text_pair}, and data.columns names no text_pair")
    if has_pair and "text_pair" not in slots:
        yield Fault(where, "has no {text_pair}, which data.columns names")
