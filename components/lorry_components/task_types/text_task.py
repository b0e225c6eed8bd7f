"""The family of task types over transformers' models of text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lorry_components.models.blocks import build_skeleton, find_layers
from lorry_components.models.configuration import load_config
from lorry_components.models.dimensions import count_positions, read_hidden_size
from lorry_components.models.dropout_fields import check_dropouts, list_dropouts
from lorry_components.models.model_family import is_encoder_decoder
from lorry_components.task_types.adapting_method import AdaptingMethod
from lorry_components.task_types.base import Answer, TaskType
from lorry_registry.errors import BaseModelError, Fault, TrainingError
from lorry_registry.manifest import Pooling
from lorry_registry.tasks.task_spec import DRAWING_FIELDS, GenerateSpec, TrainSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from lorry_components.task_types.diffusion.base import DiffusionTaskType


@dataclass(frozen=True, slots=True)
class PassLengths:
    """How many tokens a forward pass of training has for a text, beside those that the base reads.

    Attributes:
        decoder: Tokens of the answer, where a decoder writes it beside an encoder; None: there is no decoder.
        supervised: Tokens that the output over the vocabulary is computed for, where those are only some of a
            causal language model's; None: as many as the model computes.
    """

    decoder: int | None = None
    supervised: int | None = None


class TextTaskType(TaskType):
    """A task type over one of transformers' models of text.

    Attributes:
        model_class: The automatic class of transformers' that puts its head on a base.
    """

    model_class: ClassVar[str]

    def match_family(
        self,
        *,
        text: "Callable[[TextTaskType], Answer]",
        diffusion: "Callable[[DiffusionTaskType], Answer]",
    ) -> Answer:
        """Call ``text``."""
        return text(self)

    # The task file

    @classmethod
    def check_generate(cls, generate: GenerateSpec) -> Iterator[Fault]:
        """Check that no field is for images."""
        for name in DRAWING_FIELDS:
            if name in generate.model_fields_set:
                yield Fault(f"generate.{name}", f"is for images, and not for {cls.name}", "leave it out")

    # The base

    @classmethod
    def find_model_class(cls, config: "PretrainedConfig") -> str:  # noqa: ARG003
        """Return the automatic class of transformers' that puts the head on a base of this configuration."""
        return cls.model_class

    def find_loader(self, config: "PretrainedConfig", stated: Pooling | None) -> Any:
        """Return what puts the head on a base: a class of transformers', or what loads as such a class does.

        Args:
            config: The base's configuration.
            stated: How the base says that its states are pooled.
        """
        return self.find_model_class(config)

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Say why this task type does not work on a base, from its configuration."""
        yield from ()

    def check_packing(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Say why sequences cannot be packed behind one another, if they cannot."""
        yield Fault(
            "train.packing", f"is for causal language models, and not for {self.name}", "leave it out"
        )

    def check_on_base(self, folder: Path, train: TrainSpec, method: AdaptingMethod) -> Iterator[Fault]:
        """Check the base for this task type, and for how it is adapted and trained."""
        yield from self.check_configured(load_config(folder), folder, train, method)

    def check_configured(
        self,
        config: "PretrainedConfig",
        folder: Path,
        train: TrainSpec,
        method: AdaptingMethod,
    ) -> Iterator[Fault]:
        """Check a base by its configuration, for which a :class:`StoredConfig` may stand."""
        yield from self.check_base(config)
        yield from self.check_folder(folder)
        yield from method.check_base(config)
        yield from self._check_length(config, method)
        yield from _check_learning_rate(config, train)
        yield from check_dropouts(train, config)
        yield from _check_blocks(config, train)
        if train.packing:
            yield from self.check_packing(config)

    def _check_length(self, config: "PretrainedConfig", method: AdaptingMethod) -> Iterator[Fault]:
        """Check that texts fit into the base's positions, beside what the method puts before them."""
        added, positions, longest = method.count_added_tokens(), count_positions(config), self.form.max_length
        if positions is None or longest + added <= positions:
            return
        beside = f" and {added} of {method.name}" if added else ""
        remedy = (
            f"write max_length: {positions - added} or less" if added < positions else "write fewer tokens"
        )
        yield Fault(
            "data.max_length",
            f"{longest} tokens of text{beside} are more than the {positions} positions of the base",
            remedy,
        )

    # Training

    def load_reader(self, folder: Path) -> Any:
        """Load the base's tokeniser. One without a token for padding pads with the one that ends texts."""
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if tokenizer.pad_token is None and tokenizer.eos_token is not None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def list_load_options(self, folder: Path, train: TrainSpec, attention: str | None) -> dict[str, Any]:
        """Return the dropouts that the task sets, and the implementation of attention."""
        options: dict[str, Any] = list_dropouts(train, load_config(folder))
        return options if attention is None else options | {"attn_implementation": attention}

    def describe_head(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Return the fields of the base's configuration that decide the head's size and its loss."""
        return {}

    # Sizes, for planning

    def choose_newly_initialized(self, missing: frozenset[str]) -> frozenset[str]:
        """Return which parameters are random before training, of those that a base may lack.

        Args:
            missing: The names of the parameters that a base without a head has no weights for.
        """
        return missing

    def count_written_tokens(self) -> int:
        """Return the most tokens of an answer that is generated; 0: none is."""
        return 0

    def count_outputs(self, vocabulary: int) -> int:
        """Return how many numbers are put out for each token, beside those of a small head."""
        return 0

    def describe_pass(self, config: "PretrainedConfig", tokens: int) -> PassLengths:
        """Return what a forward pass of training has beside so many tokens of text."""
        return PassLengths()


def _check_learning_rate(config: "PretrainedConfig", train: TrainSpec) -> Iterator[Fault]:
    """Check that a default learning rate can be computed, where the task names none."""
    if train.learning_rate is not None:
        return
    try:
        read_hidden_size(config)
    except BaseModelError:
        yield Fault(
            "train.learning_rate",
            f"is missing: the layers of a {config.model_type} have no single width, from which the default "
            "is computed",
            "write one, such as learning_rate: 5.0e-4",
        )


def _check_blocks(config: "PretrainedConfig", train: TrainSpec) -> Iterator[Fault]:
    """Check that what treats a base block by block finds its blocks."""
    wanted = [name for name in ("offload", "cache_frozen_layers") if getattr(train, name)]
    if not wanted:
        return
    if train.cache_frozen_layers and is_encoder_decoder(config):
        yield Fault(
            "train.cache_frozen_layers", "is for one stack of layers, and this base has two", "leave it out"
        )
    try:
        find_layers(build_skeleton(config))
    except TrainingError as error:
        for name in wanted:
            yield Fault(f"train.{name}", error.what, "leave it out")
