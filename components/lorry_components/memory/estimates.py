"""Memory by part, as a range: arithmetic over what was counted on the meta device.

The formula, with P frozen and Q trained parameters::

    weights      4 P (2 P in half precision, about half a byte in four bits) + 4 Q
    gradients    4 Q (8 Q where several processes average them)
    optimiser    8 Q: AdamW's two moments (2 Q in eight bits, where they are)
    activations  what the forward pass keeps
    logits       the output, and its gradient
    backward     what it holds temporarily, with images

It is within 6 % of published runs (fp32, 8 rows of 64 tokens). It is a range and not a number because it is
not known beforehand how long the longest batch is, how much of a mixed-precision pass stays in fp32, and how
much memory the allocator leaves unused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lorry_components.memory.activations import Activations
from lorry_components.training.setup.precision import PrecisionName
from lorry_registry.text.sizes import GIB

# The longest batch may be far below data.max_length; half of it is the low end.
_SHORT_BATCH = 0.5
# Of the bytes that an fp32 pass keeps, an autocast pass keeps between these shares: matrix products in half
# precision, norms, softmax and losses in fp32. Measured on small encoders: 0.65 to 0.69.
HALF_PRECISION = (0.6, 0.75)
# NF4 with double quantisation: four bits, and 0.127 bits for the scales (Dettmers et al. 2023).
_FOUR_BIT_BYTES = 4.127 / 8
# Two moments of a byte each, and their scales: 4 bytes for each 256 numbers of each moment.
_EIGHT_BIT_BYTES = 2 + 2 * 4 / 256
# A process with torch, transformers and PEFT in it; on a GPU the CUDA context.
_RUNTIME = {"cpu": (int(0.5 * GIB), int(1.25 * GIB)), "cuda": (int(0.3 * GIB), int(0.6 * GIB))}
# Memory that is allocated but not in use: fragments, and temporaries of the backward pass. Resident peaks of
# MiniLM on a CPU, batches of one length: LoRA with 32 rows 1.33 GiB and with 96 rows 2.83, P-tuning with 32
# rows 1.48, full 1.87 and 3.92. With batches of different lengths, as in a run, more is left of each: LoRA
# with 32 rows in bf16 takes 1.65 to 1.98. oneDNN keeps the kernels of each, and the allocator freed blocks.
_SLACK = 0.03
_PASSING_SLACK = {"cpu": 0.75, "cuda": 0.15}
_PASSING = ("activations", "logits")
# Lorry's predictor takes this many texts at once.
_PREDICTED_ROWS = 64
RUNTIME_PART = "runtime and allocator"


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes that one part of a run takes, from low to high."""

    name: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Memory by part."""

    parts: tuple[Part, ...]

    @property
    def low(self) -> int:
        """The bytes that are needed in any case."""
        return sum(part.low for part in self.parts)

    @property
    def high(self) -> int:
        """The bytes that suffice."""
        return sum(part.high for part in self.parts)

    @property
    def formula(self) -> int:
        """The high end without process and allocator, as the formulas of papers give it."""
        return sum(part.high for part in self.parts if part.name != RUNTIME_PART)


@dataclass(frozen=True, slots=True)
class Footprint:
    """The properties of a model that decide its memory.

    Attributes:
        frozen: Parameters that are not trained.
        trained: Parameters that are, including the head's.
        frozen_matrices: Frozen parameters that can be held in four bits.
        freezes_base: Whether the method leaves the base as it is, so that it may be held in half precision.
        copies_trained: Whether the method keeps a copy of what it trains in host memory, to save the changes.
        activations: Of one batch, in fp32.
        rows: Texts in that batch.
        wide_moments: Trained parameters whose moments stay in 32 bits where others are held in eight.
        scored: Positions of a text that have an output each; generation computes one at a time.
        cache: Bytes of the keys and values that are held for that batch while text is generated.
        outside_blocks: Frozen parameters outside of the blocks: embeddings, and the output layer.
        largest_block: Frozen parameters of the largest block.
    """

    frozen: int
    trained: int
    frozen_matrices: int
    freezes_base: bool
    copies_trained: bool
    activations: Activations
    rows: int
    wide_moments: int = 0
    scored: int = 1
    cache: int = 0
    outside_blocks: int = 0
    largest_block: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a training that decide its memory.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: The number format of frozen weights and matrix products.
        rows: Texts in one forward pass of one process.
        is_checkpointed: Whether layers are computed again in the backward pass instead of being kept.
        is_eight_bit: Whether the optimiser holds moments in eight bits.
        is_four_bit: Whether the frozen matrices are held in four bits.
        is_offloaded: Whether the frozen weights are in host memory, and on the GPU only while they are used.
        processes: How many train together, each on a GPU of its own.
    """

    device: str
    precision: PrecisionName
    rows: int
    is_checkpointed: bool = False
    is_eight_bit: bool = False
    is_four_bit: bool = False
    is_offloaded: bool = False
    processes: int = 1


def estimate_training(footprint: Footprint, recipe: Recipe) -> Estimate:
    """Estimate the peak of a training on the device that computes it."""
    trained = footprint.trained
    weights = _measure_frozen(footprint, recipe) + 4 * trained
    moments = _measure_moments(footprint, recipe)
    parts = [
        Part("weights", weights, weights),
        Part("gradients", 4 * trained, 4 * trained),
        Part("optimiser", moments, moments),
        *_list_passing(footprint, recipe),
    ]
    if recipe.processes > 1 and not recipe.is_offloaded:
        # DDP copies gradients into buckets, and averages those.
        parts.append(Part("gradients to average", 4 * trained, 4 * trained))
    if footprint.copies_trained and recipe.device == "cpu":
        parts.append(_measure_copy(footprint))
    return Estimate((*parts, add_runtime(recipe.device, parts)))


def estimate_host(footprint: Footprint, processes: int = 1) -> Estimate:
    """Estimate the host memory of a training on GPUs: each process loads the base there first, in fp32."""
    loaded = 4 * (footprint.frozen + footprint.trained) * processes
    parts = [Part("weights", loaded, loaded)]
    if footprint.copies_trained:
        parts.append(_measure_copy(footprint, processes))
    # Of several processes there is one more, which started them.
    return Estimate((*parts, add_runtime("cpu", parts, processes + (processes > 1))))


def estimate_inference(footprint: Footprint, recipe: Recipe) -> Estimate:
    """Estimate prediction, in the precision in which weights are stored: from one text to a whole batch."""
    activations = footprint.activations
    weights = 4 * (footprint.frozen + footprint.trained)
    parts = [
        Part("weights", weights, weights),
        Part("activations", *_scale_rows(activations.largest_layer + 2 * activations.boundary, footprint)),
        Part("logits", *_scale_rows(activations.logits // footprint.scored, footprint)),
    ]
    if footprint.cache:
        parts.append(Part("keys and values", *_scale_rows(footprint.cache, footprint)))
    return Estimate((*parts, add_runtime(recipe.device, parts)))


def _measure_frozen(footprint: Footprint, recipe: Recipe) -> int:
    """Return the bytes of the frozen weights; on a GPU, of those that are there at the same time."""
    size = 2 if recipe.precision != "fp32" and footprint.freezes_base else 4
    if recipe.is_offloaded:
        # FSDP2 gathers what is outside of the blocks for the whole step; of the blocks the one that is
        # computed, and the next one on its way. On a processor all that lies in the same memory.
        gathered = min(footprint.frozen, footprint.outside_blocks + 2 * footprint.largest_block)
        return size * (gathered if recipe.device == "cuda" else footprint.frozen + gathered)
    if recipe.is_four_bit:
        rest = footprint.frozen - footprint.frozen_matrices
        return round(_FOUR_BIT_BYTES * footprint.frozen_matrices) + size * rest
    return size * footprint.frozen


def _measure_copy(footprint: Footprint, processes: int = 1) -> Part:
    copied = 4 * footprint.trained * processes
    return Part("copy of what is trained", copied, copied)


def _measure_moments(footprint: Footprint, recipe: Recipe) -> int:
    """Return the bytes of the optimiser's moments."""
    wide = footprint.wide_moments if recipe.is_eight_bit else footprint.trained
    return 8 * wide + round(_EIGHT_BIT_BYTES * (footprint.trained - wide))


def _list_passing(footprint: Footprint, recipe: Recipe) -> list[Part]:
    """Return what a forward pass allocates and the backward pass frees."""
    activations = footprint.activations
    kept = activations.checkpointed if recipe.is_checkpointed else activations.kept
    share = recipe.rows / footprint.rows
    low, high = (1.0, 1.0) if recipe.precision == "fp32" else HALF_PRECISION
    low *= share * (1.0 if activations.is_fixed else _SHORT_BATCH)
    high *= share
    parts = [
        Part("activations", round(low * kept), round(high * kept)),
        Part("logits", round(low * activations.logits), round(2 * share * activations.logits)),
    ]
    if activations.passing:
        # With checkpointing the peak is where one layer is computed again, and holds about half of this.
        parts.append(
            Part("backward pass", round(low * activations.passing / 2), round(high * activations.passing))
        )
    if recipe.precision != "fp32":
        # Autocast keeps a half-precision copy of each fp32 matrix until the pass is over.
        parts.append(Part("half-precision copies", 0, 2 * footprint.trained))
    return parts


def _scale_rows(size: int, footprint: Footprint) -> tuple[int, int]:
    return size // footprint.rows, size * _PREDICTED_ROWS // footprint.rows


def add_runtime(device: str, parts: Sequence[Part], processes: int = 1) -> Part:
    """Return what the processes and their allocators take besides these parts."""
    low, high = (processes * size for size in _RUNTIME[device])
    slack = sum((_PASSING_SLACK[device] if part.name in _PASSING else _SLACK) * part.high for part in parts)
    return Part(RUNTIME_PART, low, high + round(slack))
