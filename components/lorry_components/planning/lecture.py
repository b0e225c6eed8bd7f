"""The lecture's tables of trained parameters and of memory, beside ours.

Each row of a method that exists here is counted on the real modules, on the meta device. Rows of methods that do
not, are counted by their closed form (:mod:`~lorry_components.planning.counting`); once a method is in
``METHODS`` with its row's options, the row is counted on its modules without a change here.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from lorry_components.methods import METHODS
from lorry_components.planning import counting
from lorry_components.planning.activations import measure_activations
from lorry_components.planning.architecture import (
    Architecture,
    adapt_architecture,
    build_architecture,
    build_configuration,
)
from lorry_components.planning.configurations import BaseConfiguration, read_known_configurations
from lorry_components.planning.devices import DEVICES, GIB
from lorry_components.planning.dimensions import Dimensions, read_dimensions
from lorry_components.planning.memory import Recipe, estimate_training
from lorry_components.planning.plan import make_footprint

_TASK_HEAD = "AutoModelForSequenceClassification"
_CAUSAL = "AutoModelForCausalLM"
_TWO_STACKS = "AutoModelForSeq2SeqLM"
# The runs of the memory table: 8 rows cut to 64 tokens, and answers such as "no complaint" in 3.
_ROWS, _TOKENS, _ANSWER_TOKENS = 8, 64, 3
_PUBLISHED_DEVICE = next(device for device in DEVICES if device.name == "A100 80 GB")
Count = Callable[[Dimensions], int]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row to compute.

    Attributes:
        base: A base that is known here.
        model_class: What transformers puts on it.
        method: The method's name in task files.
        variant: What tells the row from others of its method.
        options: The method's, as in a task file.
        published: The published count, as it is printed; empty: none is.
        count: The closed form; None: the row needs the real modules.
        reason: Why ours differs from what is printed.
    """

    base: str
    model_class: str
    method: str
    variant: str
    options: Mapping[str, Any] = field(default_factory=dict)
    published: str = ""
    count: Count | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LectureRow:
    """A published figure and ours.

    Attributes:
        name: What was trained, on which base.
        method: The method's name in task files.
        trainable_parameters: Ours, the head not with them.
        total_parameters: Of the model with its head, and with the adapter where its modules were counted.
        is_closed_form: Whether the closed form was counted, because the method does not exist here.
        published: The published count as a number; None: this row is about memory.
        published_text: What is printed there.
        memory_gib: Ours by the formula, in GiB; None: this row is about parameters.
        memory_range_gib: Ours from low to high, with what the process and its allocator add.
        published_gib: The published peak; None: it ran out of memory, or none is published.
        difference: Ours over the published figure, less 1; None: there is none to compare with.
        agrees: Whether ours rounds to what is printed, or of memory is within a tenth, or cannot fit where
            it is published to have run out.
        reason: Why it differs, or what is compared.
    """

    name: str
    method: str
    trainable_parameters: int
    total_parameters: int
    is_closed_form: bool
    published: float | None
    published_text: str
    memory_gib: float | None
    memory_range_gib: tuple[float, float] | None
    published_gib: float | None
    difference: float | None
    agrees: bool
    reason: str

    def describe(self) -> dict[str, Any]:
        """Return it as plain values."""
        return dataclasses.asdict(self)


_NOMINAL = "the paper prints the model's nominal size"
_NOMINAL_LORA = "the paper prints a nominal 0.1 % of the base"
_IN_MEBI = "the paper leaves the biases out and counts in units of 2^20: so counted, ours is the same"
_AUTHORS_CODE = "not in a paper's table: what the authors' code gives"
_CHOSEN_PREFIX = "the paper prints a nominal 0.1 % of the base; the nearest number of tokens is taken"

_COUNTS = (
    _Entry("FacebookAI/roberta-base", _TASK_HEAD, "full", "", published="125.0M", reason=_NOMINAL),
    _Entry(
        "FacebookAI/roberta-base",
        _TASK_HEAD,
        "bitfit",
        "",
        published="0.1M",
        count=counting.count_encoder_biases,
    ),
    _Entry(
        "FacebookAI/roberta-base",
        _TASK_HEAD,
        "adapter-d",
        "r=48 in layers 8-11",
        {"reduction": 16, "drop_layers": 8},
        "0.3M",
        lambda sizes: counting.count_bottlenecks(sizes, 48, without_layers=8),
    ),
    _Entry(
        "FacebookAI/roberta-base",
        _TASK_HEAD,
        "adapter-d",
        "r=48 in all layers",
        {"reduction": 16, "drop_layers": 0},
        "0.9M",
        lambda sizes: counting.count_bottlenecks(sizes, 48),
    ),
    _Entry(
        "FacebookAI/roberta-base",
        _TASK_HEAD,
        "lora",
        "r=8",
        {"r": 8, "targets": ["query", "value"]},
        "0.3M",
    ),
    _Entry("FacebookAI/roberta-large", _TASK_HEAD, "full", "", published="355.0M", reason=_NOMINAL),
    _Entry(
        "FacebookAI/roberta-large",
        _TASK_HEAD,
        "lora",
        "r=8",
        {"r": 8, "targets": ["query", "value"]},
        "0.8M",
    ),
    _Entry(
        "FacebookAI/roberta-large",
        _TASK_HEAD,
        "adapter-p",
        "r=64",
        {"reduction": 16},
        "3.0M",
        lambda sizes: counting.count_bottlenecks(sizes, 64),
        _IN_MEBI,
    ),
    _Entry(
        "FacebookAI/roberta-large",
        _TASK_HEAD,
        "adapter-p",
        "r=16",
        {"reduction": 64},
        "0.8M",
        lambda sizes: counting.count_bottlenecks(sizes, 16),
    ),
    _Entry(
        "FacebookAI/roberta-large",
        _TASK_HEAD,
        "adapter-h",
        "r=64",
        {"reduction": 16},
        "6.0M",
        lambda sizes: counting.count_bottlenecks(sizes, 64, each_layer=2),
        _IN_MEBI,
    ),
    _Entry(
        "FacebookAI/roberta-large",
        _TASK_HEAD,
        "adapter-h",
        "r=8",
        {"reduction": 128},
        "0.8M",
        lambda sizes: counting.count_bottlenecks(sizes, 8, each_layer=2),
    ),
    _Entry("microsoft/deberta-v2-xxlarge", _TASK_HEAD, "full", "", published="1.5B", reason=_NOMINAL),
    _Entry(
        "microsoft/deberta-v2-xxlarge",
        _TASK_HEAD,
        "lora",
        "r=16",
        {"r": 16, "targets": ["query_proj", "value_proj"]},
        "4.7M",
    ),
    _Entry(
        "openai-community/gpt2-medium",
        _CAUSAL,
        "full",
        "",
        published="354.92M",
        reason="the paper's digits: its own architecture has 354.82M",
    ),
    _Entry(
        "openai-community/gpt2-medium",
        _CAUSAL,
        "ft-top",
        "2 layers",
        {"layers": 2},
        "25.19M",
        lambda sizes: counting.count_decoder_blocks(sizes, 2),
    ),
    _Entry(
        "openai-community/gpt2-medium",
        _CAUSAL,
        "adapter-l",
        "r=6",
        {"width": 6},
        "0.37M",
        lambda sizes: counting.count_bottlenecks(sizes, 6, has_norm=True),
    ),
    _Entry(
        "openai-community/gpt2-medium",
        _CAUSAL,
        "adapter-l",
        "r=224",
        {"width": 224},
        "11.09M",
        lambda sizes: counting.count_bottlenecks(sizes, 224, has_norm=True),
    ),
    _Entry(
        "openai-community/gpt2-medium",
        _CAUSAL,
        "adapter-h",
        "r=112",
        {"width": 112},
        "11.09M",
        lambda sizes: counting.count_bottlenecks(sizes, 112, each_layer=2),
        "the paper prints Adapter-L's figure for both; r = 113 would give 11.16M",
    ),
    _Entry(
        "openai-community/gpt2-medium",
        _CAUSAL,
        "prelayer",
        "14 tokens",
        {"tokens": 14},
        "0.35M",
        lambda sizes: counting.count_layer_prefixes(sizes, 14),
        _CHOSEN_PREFIX,
    ),
    _Entry("openai-community/gpt2-medium", _CAUSAL, "lora", "r=4", {"r": 4}, "0.35M", reason=_NOMINAL_LORA),
    _Entry("openai-community/gpt2-large", _CAUSAL, "full", "", published="774.03M"),
    _Entry(
        "openai-community/gpt2-large",
        _CAUSAL,
        "adapter-l",
        "r=8",
        {"width": 8},
        "0.88M",
        lambda sizes: counting.count_bottlenecks(sizes, 8, has_norm=True),
    ),
    _Entry(
        "openai-community/gpt2-large",
        _CAUSAL,
        "adapter-l",
        "r=248",
        {"width": 248},
        "23.00M",
        lambda sizes: counting.count_bottlenecks(sizes, 248, has_norm=True),
    ),
    _Entry(
        "openai-community/gpt2-large",
        _CAUSAL,
        "prelayer",
        "17 tokens",
        {"tokens": 17},
        "0.77M",
        lambda sizes: counting.count_layer_prefixes(sizes, 17),
        _CHOSEN_PREFIX,
    ),
    _Entry("openai-community/gpt2-large", _CAUSAL, "lora", "r=4", {"r": 4}, "0.77M", reason=_NOMINAL_LORA),
    _Entry(
        "bigscience/mt0-large",
        _TWO_STACKS,
        "lora",
        "r=8",
        {"r": 8},
        "2,359,296",
        reason="0.1915 % of 1,231,940,608, as published",
    ),
    _Entry(
        "google-bert/bert-base-cased",
        _TASK_HEAD,
        "p-tuning",
        "9 tokens, LSTM",
        {"tokens": 9, "encoder": "lstm", "hidden_size": 384, "layers": 2},
        "8,278,272",
        lambda sizes: counting.count_prompt_encoder(sizes, 9),
        _AUTHORS_CODE,
    ),
    _Entry(
        "FacebookAI/roberta-large",
        _TASK_HEAD,
        "p-tuning-v2",
        "128 tokens",
        {"tokens": 128},
        "6,291,456",
        lambda sizes: counting.count_prefix(sizes, 128),
        _AUTHORS_CODE,
    ),
    _Entry(
        "google-bert/bert-base-cased",
        _TASK_HEAD,
        "prompt-tuning",
        "20 tokens",
        {"tokens": 20},
        "",
        lambda sizes: counting.count_soft_tokens(sizes, 20),
        "no figure is published for it",
    ),
)

# Published peaks in GiB on an A100 of 80 GB (RAFT twitter_complaints); None: out of memory.
_MEMORY: tuple[tuple[str, str, str, float | None], ...] = (
    ("bigscience/T0_3B", _TWO_STACKS, "full", 47.14),
    ("bigscience/T0_3B", _TWO_STACKS, "lora", 14.4),
    ("bigscience/mt0-xxl", _TWO_STACKS, "full", None),
    ("bigscience/mt0-xxl", _TWO_STACKS, "lora", 56.0),
    ("bigscience/bloomz-7b1", _CAUSAL, "full", None),
    ("bigscience/bloomz-7b1", _CAUSAL, "lora", 32.0),
)


def list_lecture_rows() -> list[LectureRow]:
    """Compute the lecture's rows: those of the parameter tables first, then those of the memory table."""
    return [
        *_count_rows(_COUNTS),
        *(_measure_row(*entry) for entry in _MEMORY),
    ]


def parse_count(text: str) -> tuple[float, float]:
    """Return the number that a paper prints, such as ``0.35M``, and half of its last digit's worth."""
    unit = {"M": 1e6, "B": 1e9}.get(text[-1:], 1.0)
    digits = text.rstrip("MB").replace(",", "")
    decimals = len(digits.partition(".")[2])
    return float(digits) * unit, 0.5 * unit / 10**decimals


def _count_rows(entries: Sequence[_Entry]) -> Iterator[LectureRow]:
    totals: dict[tuple[str, str], int] = {}
    for entry in entries:
        base = BaseConfiguration(read_known_configurations()[entry.base], entry.base)
        method_class = METHODS.get(entry.method)
        if method_class is not None and _understands(method_class.options_model, entry.options):
            architecture = _build(base, entry.model_class)
            parameters = adapt_architecture(method_class(entry.options), architecture).parameters
            yield _describe_count(entry, parameters.adapter, parameters.total, is_closed_form=False)
            continue
        model = (entry.base, entry.model_class)
        if model not in totals:
            architecture = _build(base, entry.model_class)
            totals[model] = sum(parameter.numel() for parameter in architecture.model.parameters())
        dimensions = read_dimensions(base.values)
        assert entry.count is not None
        assert dimensions is not None
        yield _describe_count(entry, entry.count(dimensions), totals[model], is_closed_form=True)


def _describe_count(entry: _Entry, trained: int, total: int, *, is_closed_form: bool) -> LectureRow:
    published, agrees, difference = None, True, None
    if entry.published:
        published, tolerance = parse_count(entry.published)
        agrees = abs(trained - published) <= tolerance
        difference = trained / published - 1
    return LectureRow(
        name=" ".join(filter(None, (_shorten(entry.base), entry.method, entry.variant))),
        method=entry.method,
        trainable_parameters=trained,
        total_parameters=total,
        is_closed_form=is_closed_form,
        published=published,
        published_text=entry.published,
        memory_gib=None,
        memory_range_gib=None,
        published_gib=None,
        difference=difference,
        agrees=agrees,
        reason=entry.reason,
    )


def _understands(options_model: Any, options: Mapping[str, Any]) -> bool:
    try:
        options_model.model_validate(dict(options))
    except ValidationError:
        return False
    return True


def _measure_row(base_name: str, model_class: str, method_name: str, published: float | None) -> LectureRow:
    base = BaseConfiguration(read_known_configurations()[base_name], base_name)
    method = METHODS[method_name]({"r": 8} if method_name == "lora" else {})
    # Eager attention and fp32, as these runs were.
    adapted = adapt_architecture(method, _build(base, model_class, attention="eager"))
    activations = measure_activations(
        adapted.model,
        rows=_ROWS,
        tokens=_TOKENS,
        target_tokens=_ANSWER_TOKENS if model_class == _TWO_STACKS else None,
        on_cuda=True,
    )
    estimate = estimate_training(
        make_footprint(adapted, method, activations, _ROWS), Recipe("cuda", "fp32", _ROWS)
    )
    ours = estimate.formula / GIB
    return LectureRow(
        name=f"{_shorten(base_name)} {method_name}",
        method=method_name,
        trainable_parameters=adapted.parameters.trained,
        total_parameters=adapted.parameters.total,
        is_closed_form=False,
        published=None,
        published_text=f"{published:g} GB" if published else "out of memory",
        memory_gib=ours,
        memory_range_gib=(estimate.low / GIB, estimate.high / GIB),
        published_gib=published,
        difference=ours / published - 1 if published else None,
        agrees=abs(ours / published - 1) <= 0.1 if published else estimate.low > _PUBLISHED_DEVICE.usable,
        reason=""
        if published
        else f"ours is above the {_PUBLISHED_DEVICE.usable / GIB:.1f} GiB of an A100 80 GB",
    )


def _build(base: BaseConfiguration, model_class: str, *, attention: str = "sdpa") -> Architecture:
    return build_architecture(base, build_configuration(base), model_class, attention=attention)


def _shorten(base: str) -> str:
    return base.rpartition("/")[2]
