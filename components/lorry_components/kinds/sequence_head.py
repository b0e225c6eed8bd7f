"""What the kinds that put one head on a whole text, or a pair of texts, have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.kinds.base import Kind, Row
from lorry_registry.errors import BaseModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class SequenceHeadKind(Kind):
    """A kind that transformers calls sequence classification, whatever its head predicts."""

    peft_task_type = "SEQ_CLS"

    def encode_rows(
        self, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], max_length: int
    ) -> list[dict[str, list[int]]]:
        """Tokenise texts or pairs, cutting the longer text of a pair first."""
        if not rows:
            return []
        texts = [row["text"] for row in rows]
        pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
        encoded = tokenizer(texts, pairs, truncation="longest_first", max_length=max_length)
        return [{name: encoded[name][index] for name in encoded} for index in range(len(rows))]

    def load_model(
        self, folder: Path, labels: Sequence[str] | None, **options: Any
    ) -> "tuple[PreTrainedModel, frozenset[str]]":
        """Load ``AutoModelForSequenceClassification`` with one output a class, or one for a number."""
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification

        names = list(labels) if labels is not None else ["value"]
        try:
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                folder,
                num_labels=len(names),
                id2label=dict(enumerate(names)),
                label2id={name: index for index, name in enumerate(names)},
                problem_type="regression" if labels is None else "single_label_classification",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            # Cut short, of another size than its configuration says, or of a family without such a head.
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            if "ignore_mismatched_sizes" in reason:
                reason = "its weights have other sizes than its config.json says"
            raise BaseModelError(
                f"cannot be loaded: {reason}",
                where=str(folder),
                todo="restore the base, or name one whose configuration and weights belong together",
            ) from error
        return model, frozenset(loading["missing_keys"])
