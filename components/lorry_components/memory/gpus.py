"""GPUs that are common in clouds, and how much memory they leave to a process."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lorry_registry.text.sizes import GIB


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU.

    Attributes:
        name: Its common name.
        usable: Bytes that PyTorch can use, as its out-of-memory messages say: less than the nominal size,
            because of error correction and the driver.
        has_bf16: Whether it multiplies bf16 matrices in hardware.
        pattern: Matches the names that clouds and NVIDIA's labels on nodes give it, in lower case.
    """

    name: str
    usable: int
    has_bf16: bool
    pattern: str


# From the smallest to the largest.
DEVICES = (
    Device("T4 16 GB", int(14.6 * GIB), False, r"\bt4\b"),
    Device("L4 24 GB", int(22.0 * GIB), True, r"\bl4\b"),
    Device("A10 24 GB", int(22.0 * GIB), True, r"\ba10g?\b"),
    Device("A100 40 GB", int(39.4 * GIB), True, r"\ba100\b(?!.*80)"),
    Device("A100 80 GB", int(79.1 * GIB), True, r"\ba100\b.*80"),
    Device("H100 80 GB", int(79.1 * GIB), True, r"\bh100\b"),
    Device("H200 141 GB", int(139.8 * GIB), True, r"\bh200\b"),
)


def find_smallest_device(needed: int) -> Device | None:
    """Return the smallest GPU with this many bytes, or None if there is none."""
    return next((device for device in DEVICES if device.usable >= needed), None)


def recognise_device(labels: Mapping[str, str]) -> Device | None:
    """Return the GPU that a node selector asks for, or None if its labels name no known one.

    Known are NVIDIA's ``nvidia.com/gpu.product: NVIDIA-A100-SXM4-80GB``, Google's
    ``cloud.google.com/gke-accelerator: nvidia-tesla-t4`` and Karpenter's ``instance-gpu-name: a10g``.
    """
    for label, value in labels.items():
        if "gpu" not in label and "accelerator" not in label:
            continue
        text = re.sub(r"[-_/]", " ", value.lower())
        for device in DEVICES:
            if re.search(device.pattern, text):
                return device
    return None
