"""The published figures, row by row, and how each row is computed here.

The counts are those of Hu et al. 2021 (tables 2 and 3), of PEFT's page on mt0-large, and of the code of
P-tuning's authors; the peaks are those of PEFT's own tables (RAFT twitter_complaints, and DreamBooth, on an
A100 of 80 GB).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lorry_components.models.dimensions import Dimensions
from lorry_components.reference import closed_forms

TASK_HEAD = "AutoModelForSequenceClassification"
CAUSAL = "AutoModelForCausalLM"
TWO_STACKS = "AutoModelForSeq2SeqLM"
# PEFT's names for what these classes do.
TASK_TYPES = {TASK_HEAD: "SEQ_CLS", CAUSAL: "CAUSAL_LM", TWO_STACKS: "SEQ_2_SEQ_LM"}
Count = Callable[[Dimensions], int]


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to compute.

    Attributes:
        base: The hub id of a base in ``known_bases.json``.
        model_class: The class of transformers that puts a head on it.
        method: The method's name in task files.
        variant: What distinguishes the row from others of its method.
        options: The method's, as in a task file.
        published: The published count, as it is printed; empty if there is none.
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


_NOMINAL = "the paper prints the model's nominal size"
_NOMINAL_LORA = "the paper prints a nominal 0.1 % of the base"
_IN_MEBI = "without the biases, and in units of 2^20, ours is the same"
_AUTHORS_CODE = "not in a paper's table, but counted by the authors' code"
_CHOSEN_PREFIX = "the paper prints a nominal 0.1 % of the base; the nearest number of tokens is taken"

COUNTS = (
    Entry("FacebookAI/roberta-base", TASK_HEAD, "full", "", published="125.0M", reason=_NOMINAL),
    Entry(
        "FacebookAI/roberta-base",
        TASK_HEAD,
        "bitfit",
        "",
        published="0.1M",
        count=closed_forms.count_encoder_biases,
    ),
    Entry(
        "FacebookAI/roberta-base",
        TASK_HEAD,
        "adapter-d",
        "r=48 in layers 8-11",
        {"reduction": 16, "drop": 8},
        "0.3M",
        lambda sizes: closed_forms.count_bottlenecks(sizes, 48, without_layers=8),
    ),
    Entry(
        "FacebookAI/roberta-base",
        TASK_HEAD,
        "adapter-d",
        "r=48 in all layers",
        {"reduction": 16, "drop": 0},
        "0.9M",
        lambda sizes: closed_forms.count_bottlenecks(sizes, 48),
    ),
    Entry(
        "FacebookAI/roberta-base",
        TASK_HEAD,
        "lora",
        "r=8",
        {"r": 8, "targets": ["query", "value"]},
        "0.3M",
    ),
    Entry("FacebookAI/roberta-large", TASK_HEAD, "full", "", published="355.0M", reason=_NOMINAL),
    Entry(
        "FacebookAI/roberta-large",
        TASK_HEAD,
        "lora",
        "r=8",
        {"r": 8, "targets": ["query", "value"]},
        "0.8M",
    ),
    Entry(
        "FacebookAI/roberta-large",
        TASK_HEAD,
        "adapter-p",
        "r=64",
        {"reduction": 16},
        "3.0M",
        lambda sizes: closed_forms.count_bottlenecks(sizes, 64),
        _IN_MEBI,
    ),
    Entry(
        "FacebookAI/roberta-large",
        TASK_HEAD,
        "adapter-p",
        "r=16",
        {"reduction": 64},
        "0.8M",
        lambda sizes: closed_forms.count_bottlenecks(sizes, 16),
    ),
    Entry(
        "FacebookAI/roberta-large",
        TASK_HEAD,
        "adapter-h",
        "r=64",
        {"reduction": 16},
        "6.0M",
        lambda sizes: closed_forms.count_bottlenecks(sizes, 64, each_layer=2),
        _IN_MEBI,
    ),
    Entry(
        "FacebookAI/roberta-large",
        TASK_HEAD,
        "adapter-h",
        "r=8",
        {"reduction": 128},
        "0.8M",
        lambda sizes: closed_forms.count_bottlenecks(sizes, 8, each_layer=2),
    ),
    Entry("microsoft/deberta-v2-xxlarge", TASK_HEAD, "full", "", published="1.5B", reason=_NOMINAL),
    Entry(
        "microsoft/deberta-v2-xxlarge",
        TASK_HEAD,
        "lora",
        "r=16",
        {"r": 16, "targets": ["query_proj", "value_proj"]},
        "4.7M",
    ),
    Entry(
        "openai-community/gpt2-medium",
        CAUSAL,
        "full",
        "",
        published="354.92M",
        reason="the paper's digits: its own architecture has 354.82M",
    ),
    Entry(
        "openai-community/gpt2-medium",
        CAUSAL,
        "ft-top",
        "2 layers",
        {"layers": 2},
        "25.19M",
        lambda sizes: closed_forms.count_decoder_blocks(sizes, 2),
    ),
    Entry(
        "openai-community/gpt2-medium",
        CAUSAL,
        "adapter-l",
        "r=6",
        {"size": 6},
        "0.37M",
        lambda sizes: closed_forms.count_bottlenecks(sizes, 6, has_norm=True),
    ),
    Entry(
        "openai-community/gpt2-medium",
        CAUSAL,
        "adapter-l",
        "r=224",
        {"size": 224},
        "11.09M",
        lambda sizes: closed_forms.count_bottlenecks(sizes, 224, has_norm=True),
    ),
    Entry(
        "openai-community/gpt2-medium",
        CAUSAL,
        "adapter-h",
        "r=112",
        {"size": 112},
        "11.09M",
        lambda sizes: closed_forms.count_bottlenecks(sizes, 112, each_layer=2),
        "the paper prints Adapter-L's figure for both; r = 113 would give 11.16M",
    ),
    Entry(
        "openai-community/gpt2-medium",
        CAUSAL,
        "prelayer",
        "14 tokens",
        {"tokens": 14},
        "0.35M",
        lambda sizes: closed_forms.count_layer_prefixes(sizes, 14),
        _CHOSEN_PREFIX,
    ),
    Entry("openai-community/gpt2-medium", CAUSAL, "lora", "r=4", {"r": 4}, "0.35M", reason=_NOMINAL_LORA),
    Entry("openai-community/gpt2-large", CAUSAL, "full", "", published="774.03M"),
    Entry(
        "openai-community/gpt2-large",
        CAUSAL,
        "adapter-l",
        "r=8",
        {"size": 8},
        "0.88M",
        lambda sizes: closed_forms.count_bottlenecks(sizes, 8, has_norm=True),
    ),
    Entry(
        "openai-community/gpt2-large",
        CAUSAL,
        "adapter-l",
        "r=248",
        {"size": 248},
        "23.00M",
        lambda sizes: closed_forms.count_bottlenecks(sizes, 248, has_norm=True),
    ),
    Entry(
        "openai-community/gpt2-large",
        CAUSAL,
        "prelayer",
        "17 tokens",
        {"tokens": 17},
        "0.77M",
        lambda sizes: closed_forms.count_layer_prefixes(sizes, 17),
        _CHOSEN_PREFIX,
    ),
    Entry("openai-community/gpt2-large", CAUSAL, "lora", "r=4", {"r": 4}, "0.77M", reason=_NOMINAL_LORA),
    Entry(
        "bigscience/mt0-large",
        TWO_STACKS,
        "lora",
        "r=8",
        {"r": 8},
        "2,359,296",
        reason="0.1915 % of 1,231,940,608, as published",
    ),
    Entry(
        "google-bert/bert-base-cased",
        TASK_HEAD,
        "p-tuning",
        "9 tokens, LSTM",
        {"tokens": 9, "encoder": "lstm", "hidden_size": 384, "layers": 2},
        "8,278,272",
        lambda sizes: closed_forms.count_prompt_encoder(sizes, 9),
        _AUTHORS_CODE,
    ),
    Entry(
        "FacebookAI/roberta-large",
        TASK_HEAD,
        "p-tuning-v2",
        "128 tokens",
        {"tokens": 128},
        "6,291,456",
        lambda sizes: closed_forms.count_prefix(sizes, 128),
        _AUTHORS_CODE,
    ),
    Entry(
        "google-bert/bert-base-cased",
        TASK_HEAD,
        "prompt-tuning",
        "20 tokens",
        {"tokens": 20},
        "",
        lambda sizes: closed_forms.count_soft_tokens(sizes, 20),
        "no figure is published for it",
    ),
)

# Published peaks in GiB on an A100 of 80 GB (RAFT twitter_complaints): the method, whether its frozen weights
# were offloaded, and the peak; None: out of memory.
MEMORY: tuple[tuple[str, str, str, bool, float | None], ...] = (
    ("bigscience/T0_3B", TWO_STACKS, "full", False, 47.14),
    ("bigscience/T0_3B", TWO_STACKS, "lora", False, 14.4),
    ("bigscience/T0_3B", TWO_STACKS, "lora", True, 9.8),
    ("bigscience/mt0-xxl", TWO_STACKS, "full", False, None),
    ("bigscience/mt0-xxl", TWO_STACKS, "lora", False, 56.0),
    ("bigscience/mt0-xxl", TWO_STACKS, "lora", True, 22.0),
    ("bigscience/bloomz-7b1", CAUSAL, "full", False, None),
    ("bigscience/bloomz-7b1", CAUSAL, "lora", False, 32.0),
    ("bigscience/bloomz-7b1", CAUSAL, "lora", True, 18.1),
)
OFFLOAD_REASON = (
    "published with DeepSpeed, which may keep 10^9 gathered parameters and buffers of their size; "
    "ours is FSDP2, which keeps two blocks"
)

# Published peaks in GiB of DreamBooth on it: the method, and whether with gradient checkpointing.
PIPELINE = "CompVis/stable-diffusion-v1-4"
IMAGE_MEMORY: tuple[tuple[str, bool, float], ...] = (
    ("full", False, 27.5),
    ("lora", False, 15.5),
    ("lora", True, 8.12),
)
IMAGE_REASON = (
    "UNet and text encoder trained, two images of 512x512 a step, attention that keeps its scores, as in "
    "PEFT's example"
)
