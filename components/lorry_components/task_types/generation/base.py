"""The common part of the task types that write text: prompts, answers, decoding, and scores."""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from lorry_components.data.examples import Example
from lorry_components.data.rows import DataForm, Label, Row
from lorry_components.metrics import (
    score_bleu,
    score_cider,
    score_exact_match,
    score_meteor,
    score_meteor_1_5,
    score_nist,
    score_rouge_l,
    score_sql_match,
)
from lorry_components.metrics.base import Prediction, Target
from lorry_components.metrics.rouge import compute_rouge_l
from lorry_components.metrics.words import list_references, split_words
from lorry_components.models.pretrained import load_pretrained
from lorry_components.plot_style import GUIDE, SCALE
from lorry_components.task_types.base import (
    IGNORED,
    Features,
    Outputs,
    Report,
    batch_by_length,
    gather_targets,
)
from lorry_components.task_types.generation.answer_lengths import warn_of_cut_answers
from lorry_components.task_types.generation.prompts import (
    PromptWriter,
    check_prompt_template,
    cut_label,
    uses_chat,
)
from lorry_components.task_types.text_task import TextTaskType
from lorry_components.task_types.training_form import TrainingForm
from lorry_components.task_types.trivial_answers import COMMON_ANSWER, find_common_answer, find_most_common
from lorry_registry.errors import Fault

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from torch import nn
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

# Beams that are searched at once.
_BATCH_BEAMS = 64
# Of a vocabulary, so many outputs are recorded: all of them would be a megabyte a row.
_PROBED_TOKENS = 16


def choose_probed_tokens(vocabulary: int) -> list[int]:
    """Return the ids of the tokens whose logits are recorded, of so many."""
    ids: list[int] = np.linspace(0, vocabulary - 1, _PROBED_TOKENS).round().astype(int).tolist()
    return ids


class GenerationTaskType(TextTaskType):
    """A task type whose predictions are texts, generated token by token by the base's own output layer.

    The base's own ``generation_config.json`` is not read: the same task generates in the same way
    wherever its base was installed from.

    Attributes:
        default_template: The template of a task that gives none.
        default_pair_template: The same when rows have a second text.
    """

    metrics = {
        "bleu": score_bleu,
        "nist": score_nist,
        "meteor-1.5": score_meteor_1_5,
        # The formula of 2005.
        "meteor": score_meteor,
        "rouge-l": score_rouge_l,
        "cider": score_cider,
        "exact_match": score_exact_match,
        "sql_match": score_sql_match,
    }
    optional_metrics = frozenset({"meteor", "sql_match"})
    unbounded_metrics = frozenset({"nist", "cider"})
    row_metric = "rouge-l"
    prediction_fields = {"text": "string"}
    data_form = DataForm("text")
    training_form = TrainingForm(loss="token_mean")
    default_template: ClassVar[str]
    default_pair_template: ClassVar[str]

    # The data

    @classmethod
    def check_template(cls, template: str | None, *, has_pair: bool) -> Iterator[Fault]:
        """Check that a template has the row's texts, and the label nowhere but at its end."""
        if template is not None:
            yield from check_prompt_template(template, "data.template", has_pair=has_pair)

    def check_folder(self, folder: Path) -> Iterator[Fault]:
        """Check that there is a chat template where the task wants one."""
        if self.form.generate.chat == "always" and not _has_chat_template(folder):
            yield Fault(
                "generate.chat",
                "the base has no chat template",
                "write auto or never, or choose a base that has one",
            )

    def review_examples(self, parts: Mapping[str, Sequence[Example]], folder: Path) -> Iterator[str]:
        """Warn of answers that ``data.max_target`` cuts, counted in the base's tokens.

        Raises:
            TrainingError: The base's tokeniser has no token that ends a text.
        """
        return warn_of_cut_answers(parts, self.build_writer(self.load_reader(folder)))

    def parse_label(self, raw: object) -> str:
        """Accept text and whole numbers."""
        if isinstance(raw, bool) or not isinstance(raw, str | int):
            raise ValueError(f"{raw!r} is not a text")
        return str(raw).strip()

    # Sizes, for planning

    def choose_newly_initialized(self, missing: frozenset[str]) -> frozenset[str]:
        """Return none: the output layer is the base's own."""
        return frozenset()

    def count_written_tokens(self) -> int:
        """Return how long answers may be."""
        return self.form.max_target

    def count_outputs(self, vocabulary: int) -> int:
        """Return one number for each token of the vocabulary."""
        return vocabulary

    # Training

    def load_model(
        self, folder: Path, labels: Sequence[str] | None, **options: Any
    ) -> "tuple[PreTrainedModel, frozenset[str]]":
        """Load the base with the output layer that it was trained with."""
        from transformers import GenerationConfig

        model, newly_initialized = load_pretrained(self.model_class, folder, may_miss=False, **options)
        model.generation_config = GenerationConfig.from_model_config(model.config)
        return model, newly_initialized

    def encode_examples(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[Row],
        targets: Sequence[Label],
        labels: Sequence[str] | None,
    ) -> list[Features]:
        """Return prompts and answers in tokens; of labels only those of the answer count."""
        writer = self.build_writer(tokenizer)
        prompts = writer.encode_prompts(rows)
        answers = writer.encode_answers([str(target) for target in targets])
        return [self.join(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def build_collator(self, tokenizer: "PreTrainedTokenizerBase") -> Callable[[list[Features]], Any]:
        """Pad inputs and labels on the right, each to the longest of a batch."""
        filler = find_filler(tokenizer)

        def collate(features: list[Features]) -> dict[str, "torch.Tensor"]:
            inputs = [row["input_ids"] for row in features]
            return {
                "input_ids": pad(inputs, filler),
                "attention_mask": pad([[1] * len(row) for row in inputs], 0),
                "labels": pad([row["labels"] for row in features], IGNORED),
            }

        return collate

    def build_writer(self, tokenizer: "PreTrainedTokenizerBase") -> PromptWriter:
        """Return what writes this task's prompts and answers for a base."""
        default = self.default_pair_template if self.form.has_pair else self.default_template
        return PromptWriter(
            tokenizer=tokenizer,
            template=cut_label(self.form.template or default),
            is_chat=uses_chat(tokenizer, self.form.generate.chat),
            room=self.count_room(),
            max_target=self.form.max_target,
            continues=self.continues,
        )

    @property
    @abstractmethod
    def continues(self) -> bool:
        """Whether the answer goes on where the prompt ends, in one sequence with it."""

    @abstractmethod
    def count_room(self) -> int:
        """Return how many tokens a prompt may have."""

    @abstractmethod
    def join(self, prompt: list[int], answer: list[int]) -> Features:
        """Return the features of a prompt with its answer."""

    # Prediction

    def compute_outputs(
        self,
        model: "nn.Module",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> Outputs:
        """Return the logits of sixteen tokens as the answer's first, shape (rows, 16).

        The tokens are spread over the vocabulary. Rows are computed one by one, for no padding to matter.
        """
        import torch

        bare: Any = model
        device = next(model.parameters()).device
        outputs = np.zeros((len(rows), _PROBED_TOKENS), dtype=np.float32)
        options = self.list_probe_inputs(bare)
        with torch.inference_mode():
            for index, prompt in enumerate(self.build_writer(tokenizer).encode_prompts(rows)):
                inputs = torch.tensor([prompt], device=device)
                logits = bare(input_ids=inputs, attention_mask=torch.ones_like(inputs), **options).logits
                last = logits[0, -1].float().cpu().numpy()
                outputs[index] = last[choose_probed_tokens(len(last))]
                report(index + 1)
        return outputs

    def list_probe_inputs(self, model: Any) -> dict[str, Any]:
        """Return what the model takes beside the prompt to compute the answer's first token."""
        return {}

    def predict(
        self,
        model: "nn.Module",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> list[Prediction]:
        """Return ``{"text": text}`` a row: the likeliest, without sampling, in batches of similar length."""
        import torch

        bare: Any = model
        device = next(model.parameters()).device
        writer = self.build_writer(tokenizer)
        prompts = writer.encode_prompts(rows)
        filler = find_filler(tokenizer)
        config = self.build_generation(writer, filler)
        size = max(1, _BATCH_BEAMS // self.form.generate.beams)
        texts = [""] * len(rows)
        done = 0
        with torch.inference_mode():
            for chosen in batch_by_length([len(prompt) for prompt in prompts], size):
                batch = [prompts[index] for index in chosen]
                # A causal model goes on from the right end; an encoder counts positions from the left.
                inputs = pad(batch, filler, on_left=self.continues).to(device)
                mask = pad([[1] * len(row) for row in batch], 0, on_left=self.continues).to(device)
                made = bare.generate(input_ids=inputs, attention_mask=mask, generation_config=config)
                # Before the answer stand the prompt, or the token with which a decoder starts.
                written = made[:, inputs.shape[1] if self.continues else 1 :].tolist()
                for index, ids in zip(chosen, written, strict=True):
                    texts[index] = writer.decode_answer(ids)
                done += len(chosen)
                report(done)
        return [{"text": text} for text in texts]

    def build_generation(self, writer: PromptWriter, filler: int) -> "GenerationConfig":
        """Return how texts are searched for, with every setting that could change the search."""
        from transformers import GenerationConfig

        generate = self.form.generate
        beams = {"length_penalty": generate.length_penalty} if generate.beams > 1 else {}
        settings: Any = GenerationConfig
        config: GenerationConfig = settings(
            max_new_tokens=self.form.max_target,
            do_sample=False,
            num_beams=generate.beams,
            num_return_sequences=1,
            no_repeat_ngram_size=generate.no_repeat_ngram,
            repetition_penalty=1.0,
            min_length=0,
            eos_token_id=list(writer.stops),
            pad_token_id=filler,
            **beams,
        )
        return config

    def describe_prediction(self, prediction: Prediction) -> str:
        """Return the text on one line."""
        return " ".join(str(prediction["text"]).split())

    # Evaluation

    def group_targets(self, rows: Sequence[Row], targets: Sequence[Label]) -> tuple[list[Row], list[Target]]:
        """Return each input once, with all texts that are right for it."""
        gathered = gather_targets(rows, targets)
        return [row for row, _ in gathered], [tuple(labels) for _, labels in gathered]

    def find_single_answer(self, targets: Sequence[Target], predictions: Sequence[Prediction]) -> str | None:
        """Return the text of all predictions, where no text is right for all rows."""
        return find_common_answer(targets, [str(prediction["text"]) for prediction in predictions])

    def predict_trivially(
        self,
        rows: Sequence[Row],
        answers: Sequence[Label],
        labels: Sequence[str] | None,
    ) -> dict[str, list[Prediction]]:
        """Answer with the text that most training rows have, and with the input."""
        common = find_most_common(answers)
        return {
            COMMON_ANSWER: [{"text": common}] * len(rows),
            "copy of the input": [{"text": row["text"]} for row in rows],
        }

    def reduce_to_base(self) -> Self:
        """Return the task type with the words of the template alone."""
        return type(self)(replace(self.form, soft_template=None))

    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> None:
        """Draw the words of each text over those of its nearest reference, coloured by ROUGE-L."""
        lengths = [len(split_words(str(prediction["text"]))) for prediction in predictions]
        references = [list_references(target) for target in targets]
        nearest = [
            own + min((len(split_words(text)) - own for text in texts), key=abs)
            for texts, own in zip(references, lengths, strict=True)
        ]
        scores = [
            compute_rouge_l(texts, str(prediction["text"]))
            for texts, prediction in zip(references, predictions, strict=True)
        ]
        # Whole numbers would lie on top of each other.
        shift = np.random.default_rng(0).uniform(-0.3, 0.3, (2, len(lengths)))
        longest = max(*lengths, *nearest, 1)
        axes.plot([0, longest], [0, longest], color=GUIDE, linewidth=1, zorder=1, label="equally long")
        drawn = axes.scatter(
            np.asarray(nearest) + shift[0],
            np.asarray(lengths) + shift[1],
            c=scores,
            s=14,
            cmap=SCALE,
            vmin=0.0,
            vmax=1.0,
            edgecolors="none",
            zorder=2,
            label="a test row",
        )
        axes.legend(frameon=False, fontsize=8)
        axes.figure.colorbar(drawn, ax=axes, label="ROUGE-L")
        axes.set_xlabel("words of the nearest reference")
        axes.set_ylabel("words of the prediction")


def find_filler(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return a token to pad with. It is masked everywhere, so that any will do where there is none for it."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def pad(rows: Sequence[Sequence[int]], filler: int, *, on_left: bool = False) -> "torch.Tensor":
    """Return rows as one table, shape (rows, longest)."""
    import torch

    width = max(len(row) for row in rows)
    gaps = [[filler] * (width - len(row)) for row in rows]
    return torch.tensor(
        [[*gap, *row] if on_left else [*row, *gap] for row, gap in zip(rows, gaps, strict=True)]
    )


def _has_chat_template(folder: Path) -> bool:
    """Return whether a tokeniser's folder holds a chat template, without loading the tokeniser."""
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        values = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and bool(values.get("chat_template"))
