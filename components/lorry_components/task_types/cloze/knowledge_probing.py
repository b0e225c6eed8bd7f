"""Knowledge probing: what a base knows of a subject, asked by a cloze.

As in LAMA (Petroni et al. 2019, https://arxiv.org/abs/1909.01066): a template names the subject, ``{text}``,
and the place of the object, ``{label}``; a masked base reads a mask there, a left-to-right base predicts the
token that comes next; the answer is any token of the vocabulary, and precision at 1 says how often the first
is right. Objects are single tokens, as LAMA and P-tuning have them: how many masks there are would tell how
long the object is, and a search over several tokens has settings of its own. An object of several tokens is
left out of training, and counts as wrong in evaluation, whatever is predicted.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorry_components.data.templates import (
    Part,
    Slot,
    Words,
    count_soft_tokens,
    have_same_words,
    list_slots,
    parse_template,
)
from lorry_components.models.loading import load_pretrained
from lorry_components.task_types.base import (
    IGNORED,
    Features,
    Label,
    Outputs,
    Prediction,
    Report,
    Row,
    Scorer,
    Target,
    TaskType,
    batch_by_length,
    gather_targets,
    list_right,
)
from lorry_components.task_types.template_filling import (
    fill_pieces,
    find_affixes,
    find_single_token,
    split_pieces,
)
from lorry_registry.errors import Fault, TrainingError, describe_value_error

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_BATCH_ROWS = 64
_RANKED = 10
_SHOWN_NUMBERS = 32
# The object, and the position before it, whose output predicts it.
_KEPT_POSITIONS = 2
_EXAMPLE = "write what the base reads, such as '{text} is located in {label} .'"


def score_precision(targets: Sequence[Target], predictions: Sequence[Prediction], *, at: int) -> Scorer:
    """Share of rows with a right token among the first so many."""
    found = _find_ranks(targets, predictions) <= at
    return lambda draw: float(np.mean(found[draw]))


def score_mrr(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Mean of 1 / rank of the first right token; 0 where it is not among the first ten."""
    reciprocal = 1.0 / _find_ranks(targets, predictions)
    return lambda draw: float(np.mean(reciprocal[draw]))


def _find_ranks(targets: Sequence[Target], predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """Return the rank of the first right token of each row, from 1; infinity: not among those ranked.

    Case does not count, for an uncased base cannot show it.
    """
    ranks = np.full(len(targets), np.inf)
    for index, (target, prediction) in enumerate(zip(targets, predictions, strict=True)):
        right = {str(label).strip().casefold() for label in list_right(target)}
        for rank, (token, _) in enumerate(prediction["top"], start=1):
            if token.casefold() in right:
                ranks[index] = rank
                break
    return ranks


@dataclass(frozen=True, slots=True)
class ClozeReader:
    """How a base reads.

    Attributes:
        tokenizer: The base's.
        is_masked: Whether it fills in masks; otherwise it reads from left to right.
        takes_positions: Whether it reads from left to right and can be told which position each token has.
    """

    tokenizer: "PreTrainedTokenizerBase"
    is_masked: bool
    takes_positions: bool


@dataclass(frozen=True, slots=True)
class _Cloze:
    """An input.

    Attributes:
        ids: Numbers of its tokens.
        place: The position whose output predicts the object.
    """

    ids: list[int]
    place: int


class KnowledgeProbing(TaskType):
    """The token that a base puts in the place of an object."""

    name = "knowledge-probing"
    summary = "the word that a base puts in the place of an object (a cloze)"
    model_class = "AutoModelForMaskedLM"
    metrics = {
        "p_at_1": lambda targets, predictions: score_precision(targets, predictions, at=1),
        "p_at_10": lambda targets, predictions: score_precision(targets, predictions, at=10),
        "mrr": score_mrr,
    }
    primary = "p_at_1"
    label_form = "text"
    # Of PEFT's wrappers the one that hands all on, whatever the output layer is.
    peft_task_type = "FEATURE_EXTRACTION"
    answer_tokens = _KEPT_POSITIONS

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

    @classmethod
    def find_model_class(cls, config: "PretrainedConfig") -> str:
        """Return the class that fills in masks, where the base's family has one."""
        return cls.model_class if _is_masked(config) else "AutoModelForCausalLM"

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base has an output over its vocabulary and reads the subject before it answers."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        if config.is_encoder_decoder or not (
            _is_masked(config) or config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        ):
            yield Fault(
                "base.model",
                f"a {config.model_type} neither fills in masks nor predicts the next token",
                "choose a base such as BERT, RoBERTa, GPT-2 or Llama",
            )
            return
        slots = list_slots(self._parts)
        if not _is_masked(config) and slots[-1] != "label":
            yield Fault(
                "data.template",
                "this base reads from left to right, and nothing behind {label}",
                "put {text} before it",
            )

    def parse_label(self, raw: object) -> str:
        """Accept text."""
        if not isinstance(raw, str) or not raw.strip():
            raise ValueError(f"{raw!r} is not the name of an object")
        return raw.strip()

    # Training

    def load_reader(self, folder: Path) -> ClozeReader:
        """Load the base's tokeniser, and find out how the base reads."""
        config = _load_config(folder)
        is_masked = _is_masked(config)
        return ClozeReader(super().load_reader(folder), is_masked, not is_masked and _takes_positions(config))

    def load_model(
        self, folder: Path, labels: Sequence[str] | None, **options: Any
    ) -> "tuple[PreTrainedModel, frozenset[str]]":
        """Load the base with the output layer that it was trained with."""
        model_class = self.find_model_class(_load_config(folder))
        return load_pretrained(model_class, folder, may_miss=False, **options)

    def encode_examples(
        self,
        reader: ClozeReader,
        rows: Sequence[Row],
        targets: Sequence[Label],
        labels: Sequence[str] | None,
    ) -> list[Features]:
        """Tokenise the clozes, and leave out those whose object is not one token of the vocabulary.

        Raises:
            TrainingError: None is left, or the template leaves no room for a subject.
        """
        objects = self._find_objects(reader.tokenizer, targets)
        kept = [
            (row, found)
            for row, target in zip(rows, targets, strict=True)
            if (found := objects[target]) is not None
        ]
        if rows and not kept:
            raise TrainingError(
                f"no object of {len(rows)} rows is one token of the base's vocabulary",
                where="data.columns.label",
                todo="choose rows whose objects are single words that the base knows, or another base",
            )
        clozes = self._encode(reader, [row for row, _ in kept])
        features: list[Features] = []
        for cloze, (_, found) in zip(clozes, kept, strict=True):
            if reader.is_masked:
                ids, answers = cloze.ids, [IGNORED] * len(cloze.ids)
                answers[cloze.place] = found
            else:
                ids, answers = [*cloze.ids, found], [IGNORED, found]
            features.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": answers})
        return features

    def build_collator(self, reader: ClozeReader) -> "Callable[[list[Features]], Any]":
        """Pad a batch: on the left where the base reads from left to right, so that all objects come last."""

        def collate(features: list[Features]) -> Any:
            import torch

            batch = _pad(reader, [row["input_ids"] for row in features])
            width = batch["input_ids"].shape[1] if reader.is_masked else _KEPT_POSITIONS
            labels = torch.full((len(features), width), IGNORED)
            for index, row in enumerate(features):
                labels[index, : len(row["labels"])] = torch.tensor(row["labels"])
            kept = {} if reader.is_masked else {"logits_to_keep": _list_last(_KEPT_POSITIONS)}
            return {**batch, "labels": labels, **kept}

        return collate

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
        found = np.zeros((len(rows), _SHOWN_NUMBERS), dtype=np.float32)
        done = 0
        for chosen, logits in self._compute_logits(model, reader, rows):
            spread = np.linspace(0, logits.shape[1] - 1, _SHOWN_NUMBERS).astype(int)
            found[chosen] = logits.log_softmax(-1)[:, spread].cpu().numpy()
            done += len(chosen)
            report(done)
        return found

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
        for chosen, logits in self._compute_logits(model, reader, rows):
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
        return f"{prediction['label']} ({prediction['score']:.0%})"

    # Evaluation

    def group_targets(self, rows: Sequence[Row], targets: Sequence[Label]) -> tuple[list[Row], list[Target]]:
        """Ask once for a subject with several objects: each of them is right."""
        gathered = gather_targets(rows, targets)
        return [row for row, _ in gathered], [tuple(dict.fromkeys(found)) for _, found in gathered]

    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> None:
        """Draw the precision at 1 to 10."""
        ranks = _find_ranks(targets, predictions)
        counts = list(range(1, _RANKED + 1))
        axes.plot(counts, [float(np.mean(ranks <= count)) for count in counts], marker="o")
        axes.set_xticks(counts)
        axes.set_ylim(0.0, 1.0)
        axes.set_xlabel("tokens looked at")
        axes.set_ylabel("share of rows with a right one")

    # Inside

    @property
    def _parts(self) -> tuple[Part, ...]:
        return parse_template(self.form.soft_template or self.form.template or "")

    def _find_objects(
        self, tokenizer: "PreTrainedTokenizerBase", targets: Sequence[Label]
    ) -> Mapping[Label, int | None]:
        after_space = _has_space_before_label(self._parts)
        return {
            target: find_single_token(tokenizer, str(target), after_space=after_space)
            for target in dict.fromkeys(targets)
        }

    def _encode(self, reader: ClozeReader, rows: Sequence[Row]) -> list[_Cloze]:
        tokenizer, is_masked = reader.tokenizer, reader.is_masked
        parts = list(self._parts)
        if not is_masked:
            # A base that reads from left to right sees nothing behind the object.
            parts = parts[: parts.index(Slot("label"))]
        pieces = split_pieces(parts)
        before, after = find_affixes(tokenizer)
        if not is_masked:
            after = []
        label = pieces.index(None) if is_masked else len(pieces)
        # Of a base that reads from left to right, the object itself is the last of what it is trained on.
        answer = [_find_mask(tokenizer)] if is_masked else []
        room = self.form.max_length - len(before) - len(after) - 1
        clozes = []
        for found in fill_pieces(tokenizer, pieces, rows, room):
            read = [*before, *chain.from_iterable(found[:label])]
            ids = [*read, *answer, *chain.from_iterable(found[label:]), *after]
            clozes.append(_Cloze(ids, len(read) if is_masked else len(ids) - 1))
        return clozes

    def _compute_logits(
        self, model: "nn.Module", reader: ClozeReader, rows: Sequence[Row]
    ) -> "Iterator[tuple[list[int], torch.Tensor]]":
        """Yield the numbers of some rows, and the logits of their objects, shape (rows, vocabulary)."""
        import torch

        device = next(model.parameters()).device
        clozes = self._encode(reader, rows)
        with torch.inference_mode():
            for chosen in batch_by_length([len(cloze.ids) for cloze in clozes], _BATCH_ROWS):
                batch = _pad(reader, [clozes[index].ids for index in chosen])
                inputs = {name: tensor.to(device) for name, tensor in batch.items()}
                if reader.is_masked:
                    places = torch.tensor([clozes[index].place for index in chosen], device=device)
                    logits = model(**inputs).logits[torch.arange(len(chosen), device=device), places]
                else:
                    logits = model(**inputs, logits_to_keep=_list_last(1).to(device)).logits[:, -1]
                yield chosen, logits.float()


def _pad(reader: ClozeReader, sequences: Sequence[Sequence[int]]) -> "dict[str, torch.Tensor]":
    import torch

    tokenizer = reader.tokenizer
    width = max(map(len, sequences))
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = torch.full((len(sequences), width), padding)
    mask = torch.zeros_like(ids)
    for index, sequence in enumerate(sequences):
        place = slice(0, len(sequence)) if reader.is_masked else slice(width - len(sequence), width)
        ids[index, place] = torch.tensor(sequence)
        mask[index, place] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    if reader.takes_positions:
        batch["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return batch


def _list_last(count: int) -> "torch.Tensor":
    """Return the numbers of the last positions.

    By their count, transformers would cut hidden states out as a view, and torch multiply that by one copy
    of the output layer for each row.
    """
    import torch

    return torch.arange(-count, 0)


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


def _has_space_before_label(parts: Sequence[Part]) -> bool:
    place = parts.index(Slot("label"))
    before = parts[place - 1] if place else None
    return isinstance(before, Words) and before.text[-1].isspace()


def _load_config(folder: Path) -> "PretrainedConfig":
    from transformers import AutoConfig

    config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    return config


def _takes_positions(config: "PretrainedConfig") -> bool:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return "position_ids" in inspect.signature(model_class.forward).parameters


def _is_masked(config: "PretrainedConfig") -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder


def _find_mask(tokenizer: "PreTrainedTokenizerBase") -> int:
    if tokenizer.mask_token_id is None:
        raise TrainingError(
            "the base's tokeniser has no mask token",
            where="base.model",
            todo="choose a base whose tokeniser has one, or one that reads from left to right",
        )
    return int(tokenizer.mask_token_id)
