"""The common part of the task types that ask for the token in a gap: templates, training, and logits.

Objects are single tokens: the number of masks would give away how long the object is, and a search over
several tokens has settings of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lorry_components.data.rows import DataForm, Label, Row
from lorry_components.data.templates import Part, list_slots, parse_template
from lorry_components.models.configuration import load_config
from lorry_components.models.model_family import fills_masks, is_causal, is_encoder_decoder
from lorry_components.models.pretrained import load_pretrained
from lorry_components.task_types.base import IGNORED, Features, batch_by_length
from lorry_components.task_types.cloze.reader import (
    Cloze,
    ClozeReader,
    encode_clozes,
    has_space_before_label,
    list_last_positions,
    pad_clozes,
    takes_positions,
)
from lorry_components.task_types.template_filling import find_single_token
from lorry_components.task_types.text_task import PassLengths, TextTaskType
from lorry_registry.errors import Fault, TrainingError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_BATCH_ROWS = 64
# The object, and the position before it, whose output predicts it.
_KEPT_POSITIONS = 2


class ClozeTaskType(TextTaskType):
    """A task type that asks a base for the token in a gap, by the output layer that it was trained with."""

    model_class = "AutoModelForMaskedLM"
    data_form = DataForm("text")
    # Of PEFT's wrappers the one that hands all on, no matter what the output layer is.
    peft_task_type = "FEATURE_EXTRACTION"

    # The base

    @classmethod
    def find_model_class(cls, config: "PretrainedConfig") -> str:
        """Return the class that fills in masks, where the base's family has one."""
        return cls.model_class if fills_masks(config) else "AutoModelForCausalLM"

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base has an output over its vocabulary and reads the subject before it answers."""
        if is_encoder_decoder(config) or not (fills_masks(config) or is_causal(config)):
            yield Fault(
                "base.model",
                f"a {config.model_type} neither fills in masks nor predicts the next token",
                "choose a base such as BERT, RoBERTa, GPT-2 or Llama",
            )
            return
        slots = list_slots(self._parts)
        if not fills_masks(config) and slots[-1] != "label":
            yield Fault(
                "data.template",
                "this base reads from left to right, and nothing behind {label}",
                "put {text} before it",
            )

    # Sizes, for planning

    def choose_newly_initialized(self, missing: frozenset[str]) -> frozenset[str]:
        """Return none: the output layer is the base's own."""
        return frozenset()

    def count_outputs(self, vocabulary: int) -> int:
        """Return one number for each token of the vocabulary."""
        return vocabulary

    def describe_pass(self, config: "PretrainedConfig", tokens: int) -> PassLengths:
        """Return the last positions as what is supervised, where the base reads from left to right."""
        return PassLengths() if fills_masks(config) else PassLengths(supervised=_KEPT_POSITIONS)

    # Training

    def load_reader(self, folder: Path) -> ClozeReader:
        """Load the base's tokeniser, with how the base reads."""
        config = load_config(folder)
        is_masked = fills_masks(config)
        return ClozeReader(super().load_reader(folder), is_masked, not is_masked and takes_positions(config))

    def load_model(
        self, folder: Path, labels: Sequence[str] | None, **options: Any
    ) -> "tuple[PreTrainedModel, frozenset[str]]":
        """Load the base with the output layer that it was trained with."""
        model_class = self.find_model_class(load_config(folder))
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
            (row, token)
            for row, target in zip(rows, targets, strict=True)
            if (token := objects[target]) is not None
        ]
        if rows and not kept:
            raise TrainingError(
                f"no object of {len(rows)} rows is one token of the base's vocabulary",
                where="data.columns.label",
                todo="choose rows whose objects are single words that the base knows, or another base",
            )
        clozes = self._encode(reader, [row for row, _ in kept])
        features: list[Features] = []
        for cloze, (_, token) in zip(clozes, kept, strict=True):
            if reader.is_masked:
                ids, answers = cloze.ids, [IGNORED] * len(cloze.ids)
                answers[cloze.place] = token
            else:
                ids, answers = [*cloze.ids, token], [IGNORED, token]
            features.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": answers})
        return features

    def build_collator(self, reader: ClozeReader) -> "Callable[[list[Features]], Any]":
        """Pad a batch: on the left where the base reads from left to right, so that all objects come last."""

        def collate(features: list[Features]) -> Any:
            import torch

            batch = pad_clozes(reader, [row["input_ids"] for row in features])
            width = batch["input_ids"].shape[1] if reader.is_masked else _KEPT_POSITIONS
            labels = torch.full((len(features), width), IGNORED)
            for index, row in enumerate(features):
                labels[index, : len(row["labels"])] = torch.tensor(row["labels"])
            kept = {} if reader.is_masked else {"logits_to_keep": list_last_positions(_KEPT_POSITIONS)}
            return {**batch, "labels": labels, **kept}

        return collate

    # Prediction

    def compute_logits(
        self, model: "nn.Module", reader: ClozeReader, rows: Sequence[Row]
    ) -> "Iterator[tuple[list[int], torch.Tensor]]":
        """Yield the numbers of some rows, and the logits of their objects, shape (rows, vocabulary)."""
        import torch

        device = next(model.parameters()).device
        clozes = self._encode(reader, rows)
        with torch.inference_mode():
            for chosen in batch_by_length([len(cloze.ids) for cloze in clozes], _BATCH_ROWS):
                batch = pad_clozes(reader, [clozes[index].ids for index in chosen])
                inputs = {name: tensor.to(device) for name, tensor in batch.items()}
                if reader.is_masked:
                    places = torch.tensor([clozes[index].place for index in chosen], device=device)
                    logits = model(**inputs).logits[torch.arange(len(chosen), device=device), places]
                else:
                    logits = model(**inputs, logits_to_keep=list_last_positions(1).to(device)).logits[:, -1]
                yield chosen, logits.float()

    def reduce_to_base(self) -> Self:
        """Return the task type with the words of the template alone."""
        return type(self)(replace(self.form, soft_template=None))

    # Encoding

    @property
    def _parts(self) -> tuple[Part, ...]:
        return parse_template(self.form.soft_template or self.form.template or "")

    def _find_objects(
        self, tokenizer: "PreTrainedTokenizerBase", targets: Sequence[Label]
    ) -> Mapping[Label, int | None]:
        after_space = has_space_before_label(self._parts)
        return {
            target: find_single_token(tokenizer, str(target), after_space=after_space)
            for target in dict.fromkeys(targets)
        }

    def _encode(self, reader: ClozeReader, rows: Sequence[Row]) -> list[Cloze]:
        return list(encode_clozes(reader, self._parts, rows, self.form.max_length))
