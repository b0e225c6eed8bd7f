"""The common part of the task types with one head on a whole text, or a pair of texts."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lorry_components.data.rows import Label, Row
from lorry_components.data.templates import list_slots, parse_template
from lorry_components.metrics.base import Prediction
from lorry_components.models.configuration import load_config
from lorry_components.models.model_family import is_encoder_decoder
from lorry_components.models.pooling import find_stated_pooling, read_pooling
from lorry_components.task_types.base import Features, Outputs, Report, batch_by_length
from lorry_components.task_types.head_choice import (
    FEW_ROWS,
    check_head_in_folder,
    check_head_on_base,
    choose_pooling,
    find_dropout_field,
)
from lorry_components.task_types.long_texts import cut_text
from lorry_components.task_types.template_filling import fill_pieces, find_affixes, split_pieces
from lorry_components.task_types.text_head import TextHeadTaskType
from lorry_components.task_types.training_form import TrainingForm
from lorry_registry.errors import Fault
from lorry_registry.manifest import Pooling
from lorry_registry.tasks.task_spec import HeadSpec

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_BATCH_ROWS = 64


class SequenceHeadTaskType(TextHeadTaskType):
    """A task type that transformers calls sequence classification, no matter what its head predicts."""

    model_class = "AutoModelForSequenceClassification"
    peft_task_type = "SEQ_CLS"
    training_form = TrainingForm(scores_outputs=True)

    @abstractmethod
    def encode_label(self, label: Label, labels: Sequence[str] | None) -> int | float:
        """Return the number that the loss is computed against."""

    @abstractmethod
    def decode_outputs(self, outputs: Outputs, labels: Sequence[str] | None) -> list[Prediction]:
        """Turn raw outputs, shape (rows, outputs of the head), into predictions, one a row."""

    def describe_head(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Return one output a class, or one for a number."""
        return {
            "num_labels": 1 if labels is None else len(labels),
            "problem_type": "regression" if labels is None else "single_label_classification",
        }

    @classmethod
    def check_soft_template(
        cls,
        soft_template: str,
        template: str | None,  # noqa: ARG003
        *,
        has_pair: bool,
    ) -> Iterator[Fault]:
        """Check that the method's template reads all texts of a row, and nothing else of it."""
        slots = list_slots(parse_template(soft_template))
        wanted = ["text", "text_pair"] if has_pair else ["text"]
        if sorted(slots) != wanted:
            shown = " and ".join(f"{{{name}}}" for name in wanted)
            yield Fault(
                "method.template",
                f"must name {shown}, each once and nothing else: a {cls.name} task predicts with a head",
            )

    @classmethod
    def check_head(cls, head: HeadSpec) -> Iterator[Fault]:  # noqa: ARG003 - every head suits every such type
        """Accept the section."""
        yield from ()

    @classmethod
    def check_method(cls, name: str) -> Iterator[Fault]:  # noqa: ARG003 - a head suits every method
        """Accept every method."""
        yield from ()

    def check_folder(self, folder: Path) -> Iterator[Fault]:
        """Check that the head can read what the base says of itself."""
        yield from check_head_in_folder(self.form, folder)

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the head suits the base, and that soft tokens between words have a place in it."""
        yield from check_head_on_base(self.form, config)
        if is_encoder_decoder(config) and self.form.soft_template is not None:
            yield Fault(
                "method.template",
                f"a {config.model_type} hands the same tokens to its decoder, which has no place for soft "
                "ones",
                "write tokens: 20 in place of a template",
            )

    def find_loader(self, config: "PretrainedConfig", stated: Pooling | None) -> Any:
        """Return transformers' class, or what loads a head of Lorry's own."""
        return self._build_loader(choose_pooling(self.form, config, stated))

    def _build_loader(self, pooling: Pooling | None) -> Any:
        if pooling is None:
            return self.model_class
        from lorry_components.models.pooled_model import PooledLoader

        return PooledLoader(pooling, self.form.head_dropout or 0.0)

    def choose_loader(self, folder: Path) -> Any:
        """Return transformers' class, or what loads a head of Lorry's own."""
        # Of a saved adapter it is known what its head reads.
        settled = self.settle(folder) if isinstance(self.form.pooling, str) else self
        return self._build_loader(settled.find_recorded_pooling())

    def settle(self, folder: Path, rows: int | None = None) -> Self:
        """Return the same task type, with the pooling and the head that base and rows decide."""
        if self.form.pooling == "stated-if-few" and rows is not None and rows < FEW_ROWS:
            return type(self)(dataclasses.replace(self.form, pooling="stated")).settle(folder)
        if self.form.pooling is None:
            return self
        settled = self.hold_pooling(choose_pooling(self.form, load_config(folder), self._read_stated(folder)))
        if self.form.pooling != "stated" or settled.form.pooling is None:
            return settled
        return type(self)(dataclasses.replace(settled.form, fits_head=True))

    def reads_first_position(self, reader: Any) -> bool:
        """Return whether it does, where it is first: in texts that are padded on the right."""
        pooling = self.find_recorded_pooling()
        # transformers' own heads on encoders do.
        return reader.padding_side == "right" and (pooling is None or pooling.place == "first")

    def without_soft_template(self) -> Self:
        """Return the same task type for a base without soft tokens between words."""
        return type(self)(dataclasses.replace(self.form, soft_template=None))

    def _read_stated(self, folder: Path) -> Pooling | None:
        if self.form.pooling == "stated":
            # A call that asks for nothing is refused nothing.
            return find_stated_pooling(folder)
        return read_pooling(folder) if self.form.pooling == "auto" else None

    def load_model(
        self, folder: Path, labels: Sequence[str] | None, **options: Any
    ) -> "tuple[PreTrainedModel, frozenset[str]]":
        """Load the base with its head, and the dropout that the task sets."""
        if self.form.head_dropout is not None and isinstance(self.choose_loader(folder), str):
            field = find_dropout_field(load_config(folder))
            options |= {field: self.form.head_dropout} if field is not None else {}
        return super().load_model(folder, labels, **options)

    def name_outputs(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Name each output as its class, or the only one as a value."""
        names = list(labels) if labels is not None else ["value"]
        return {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
        }

    def prepare_training(self, model: "nn.Module", reader: "PreTrainedTokenizerBase") -> "nn.Module":
        """Return the adapted model, once it knows which token is padding."""
        _set_padding(model, reader)
        return model

    def encode_rows(self, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row]) -> list[Features]:
        """Tokenise texts or pairs, cutting the longer text of a pair first."""
        if not rows:
            return []
        if self.form.soft_template is not None:
            return self._fill_rows(tokenizer, rows, self.form.soft_template)
        longest = self.form.max_length
        texts = [cut_text(row["text"], longest) for row in rows]
        pairs = [cut_text(row["text_pair"], longest) for row in rows] if "text_pair" in rows[0] else None
        encoded = tokenizer(texts, pairs, truncation="longest_first", max_length=longest)
        return [{name: encoded[name][index] for name in encoded} for index in range(len(rows))]

    def _fill_rows(
        self, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], template: str
    ) -> list[Features]:
        """Tokenise rows with a method's soft tokens between their words."""
        before, after = find_affixes(tokenizer)
        pieces = split_pieces(parse_template(template))
        room = self.form.max_length - len(before) - len(after)
        encoded: list[Features] = []
        for filled in fill_pieces(tokenizer, pieces, rows, room):
            ids = [*before, *(number for piece in filled for number in piece), *after]
            encoded.append({"input_ids": ids, "attention_mask": [1] * len(ids)})
        return encoded

    def encode_examples(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[Row],
        targets: Sequence[Label],
        labels: Sequence[str] | None,
    ) -> list[Features]:
        """Tokenise, with the number that the loss is computed against."""
        encoded = self.encode_rows(tokenizer, rows)
        return [
            {**features, "labels": self.encode_label(target, labels)}
            for features, target in zip(encoded, targets, strict=True)
        ]

    def build_collator(self, tokenizer: "PreTrainedTokenizerBase") -> Callable[[list[Features]], Any]:
        """Pad to the longest row of a batch."""
        from transformers import DataCollatorWithPadding

        collator: Callable[[list[Features]], Any] = DataCollatorWithPadding(tokenizer)
        return collator

    def score_training(
        self,
        outputs: Outputs,
        targets: Sequence[Label],
        labels: Sequence[str] | None,
        names: Sequence[str],
        positive: str | None = None,
    ) -> dict[str, float]:
        """Score the outputs as predictions."""
        predictions = self.decode_outputs(outputs.reshape(len(targets), -1), labels)
        return self.compute_metrics(names, targets, predictions, positive)

    def compute_outputs(
        self,
        model: "nn.Module",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> Outputs:
        """Return the raw outputs, shape (rows, outputs of the head)."""
        outputs = np.zeros((len(rows), len(labels) if labels else 1), dtype=np.float32)
        for chosen, _batch, found in self.run_batches(model, tokenizer, rows, report):
            outputs[chosen] = found.logits.float().cpu().numpy()
        return outputs

    def compute_features(
        self,
        model: "nn.Module",
        layer: "nn.Module",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[Row],
        report: Report,
    ) -> Outputs:
        """Return what the output layer of the head reads, shape (rows, width)."""
        read: list[Any] = []
        hook = layer.register_forward_pre_hook(lambda _layer, inputs: read.append(inputs[0]))
        features = np.zeros((len(rows), layer.get_parameter("weight").shape[1]), dtype=np.float32)
        try:
            for chosen, _batch, _found in self.run_batches(model, tokenizer, rows, report):
                features[chosen] = read.pop().float().cpu().numpy()
        finally:
            hook.remove()
        return features

    def run_batches(
        self, model: "nn.Module", tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], report: Report
    ) -> Iterator[tuple[list[int], Any, Any]]:
        """Run a model on rows, whether it has a head or not.

        Rows are batched by length, so that little is computed on padding.

        Args:
            model: The model.
            tokenizer: Its tokeniser.
            rows: The inputs.
            report: Called with how many are done.

        Yields:
            The numbers of the rows of a batch, what the model was given, and what it returned.
        """
        import torch

        device = next(model.parameters()).device
        _set_padding(model, tokenizer)
        encoded = self.encode_rows(tokenizer, rows)
        done = 0
        for chosen in batch_by_length([len(row["input_ids"]) for row in encoded], _BATCH_ROWS):
            batch = tokenizer.pad([encoded[index] for index in chosen], return_tensors="pt").to(device)
            with torch.inference_mode():
                found = model(**batch)
            yield chosen, batch, found
            done += len(chosen)
            report(done)

    def predict(
        self,
        model: "nn.Module",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> list[Prediction]:
        """Return the decoded outputs."""
        return self.decode_outputs(self.compute_outputs(model, tokenizer, rows, labels, report), labels)


def _set_padding(model: Any, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Set the token that the head of a decoder takes for padding to the one that batches are padded with.

    The base's configuration may name none, or another one than the tokeniser pads with.
    """
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
