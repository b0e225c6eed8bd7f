"""The number format and the attention implementation that are fast on this hardware.

Measured on MiniLM with short texts (median 24 tokens, batch 32, LoRA r=8, two cores), examples a second:

=====================  ==========================  ===========================
processor              fp32                        bf16
=====================  ==========================  ===========================
AVX-512 with BF16      153 (SDPA), 158 (eager)     238 (SDPA), 426 (eager)
without BF16 or AMX    159 (SDPA)                  half of fp32
=====================  ==========================  ===========================

In bf16, frozen weights are held in bf16 and trained ones in fp32, in any format of the base. On a
CPU, SDPA's kernel is slow in bf16, and attention scores cost little memory while sequences are short.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lorry_registry.errors import TrainingError
from lorry_registry.tasks.task_spec import TaskSpec

if TYPE_CHECKING:
    import torch

PrecisionName = Literal["fp32", "bf16", "fp16"]
_EAGER_MAX_LENGTH = 512


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the precision depends on.

    Attributes:
        device: ``cuda``, ``mps`` or ``cpu``.
        name: The device's own name.
        has_bf16: Whether it multiplies bf16 matrices in hardware.
        has_fp16: Whether it trains in fp16.
        has_flash_attention: Whether FlashAttention's kernels are installed for it.
    """

    device: str
    name: str
    has_bf16: bool
    has_fp16: bool
    has_flash_attention: bool = False


@dataclass(frozen=True, slots=True)
class Precision:
    """The formats in which a model is computed.

    Attributes:
        name: The number format of frozen weights and matrix products.
        attention: transformers' name of the attention implementation; None leaves the choice to it: SDPA
            where the base's family has it.
    """

    name: PrecisionName
    attention: Literal["eager", "flash_attention_2"] | None


def detect_hardware() -> Hardware:
    """Describe the device that training would use."""
    import torch

    if torch.cuda.is_available():
        from transformers.utils.import_utils import is_flash_attn_2_available

        return Hardware(
            "cuda",
            torch.cuda.get_device_name(),
            has_bf16=torch.cuda.is_bf16_supported(False),
            has_fp16=True,
            has_flash_attention=is_flash_attn_2_available(),
        )
    if torch.backends.mps.is_available():
        return Hardware("mps", "Apple GPU", has_bf16=False, has_fp16=False)
    return detect_processor()


def detect_processor() -> Hardware:
    """Describe this machine's processor."""
    import torch

    features = torch.cpu.get_capabilities()
    has_bf16 = any(features.get(flag, False) for flag in ("avx512_bf16", "amx_bf16"))
    return Hardware("cpu", str(features.get("cpu_name", "processor")).strip(), has_bf16, has_fp16=False)


def choose_precision(
    requested: str, hardware: Hardware, *, max_length: int, is_packed: bool = False
) -> Precision:
    """Choose the number format and the attention implementation.

    Args:
        requested: ``auto`` or a format.
        hardware: The device that trains.
        max_length: The longest sequence, in tokens.
        is_packed: Whether several sequences share one row.

    Raises:
        TrainingError: The hardware cannot train in the requested format.
    """
    if requested == "fp16" and not hardware.has_fp16:
        raise TrainingError(
            f"fp16 needs a CUDA device, and this is {hardware.name}",
            where="train.precision",
            todo="write precision: auto",
        )
    name: PrecisionName
    if requested == "fp32":
        name = "fp32"
    elif requested == "bf16" or (requested == "auto" and hardware.has_bf16):
        name = "bf16"
    elif requested == "fp16" or hardware.has_fp16:
        name = "fp16"
    else:
        name = "fp32"
    if is_packed and hardware.has_flash_attention and name != "fp32":
        # It takes the lengths of the sequences, where the others need a mask of all tokens by all tokens.
        return Precision(name, "flash_attention_2")
    is_short_on_cpu = hardware.device == "cpu" and max_length <= _EAGER_MAX_LENGTH
    return Precision(name, "eager" if is_short_on_cpu else None)


def choose_task_precision(spec: TaskSpec, hardware: Hardware) -> Precision:
    """Choose what a task is trained in.

    Args:
        spec: The task.
        hardware: The device that trains.

    Raises:
        TrainingError: The hardware cannot train in the format that the task asks for.
    """
    train = spec.train
    return choose_precision(
        train.precision, hardware, max_length=spec.data.max_length, is_packed=train.packing
    )


def find_dtype(name: PrecisionName) -> "torch.dtype":
    """Return torch's name of a number format."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
