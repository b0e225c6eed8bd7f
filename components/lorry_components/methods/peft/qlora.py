"""QLoRA: LoRA beside a base that is held in 4 bits (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lorry_components.methods.peft.lora import Lora, LoraOptions
from lorry_components.models.quantization import keep_layout, require_bitsandbytes
from lorry_registry.errors import Fault

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

KEPT_MODULES = ("classifier", "score", "pooler", "qa_outputs", "lm_head", "cls", "pre_classifier", "head")
"""Modules that are not packed: a new head is trained in full, and an output layer keeps its precision."""


class QLora(Lora):
    """LoRA beside a base in NF4 with double quantization, as published."""

    name = "qlora"
    summary = "LoRA beside a base in 4 bits"
    holds_four_bits = True
    # No one has tried it.
    continues = False
    options_model = LoraOptions

    def list_load_options(self) -> dict[str, Any]:
        """Load the base in 4 bits."""
        require_bitsandbytes(
            "qlora holds the base in 4 bits, which needs bitsandbytes",
            where="method.name",
            otherwise="choose method lora",
        )
        import torch
        from transformers import BitsAndBytesConfig

        has_bf16 = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(False)
        quantization = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if has_bf16 else torch.float16,
            llm_int8_skip_modules=list(KEPT_MODULES),
        )
        return {"quantization_config": quantization}

    def check_model(self, model: "PreTrainedModel") -> Iterator[Fault]:
        """Check what LoRA checks, and that packed weights need no change."""
        yield from super().check_model(model)
        if self.options.init in ("pissa", "olora"):
            yield Fault(
                "method.init", f"{self.options.init} would change the packed weights", "choose kaiming"
            )
        if self.has_transposed_targets(model):
            yield Fault(
                "method.targets", "bitsandbytes packs no Conv1D, which GPT-2 is made of", "choose lora"
            )

    def _wrap(self, model: "PreTrainedModel", config: "PeftConfig") -> "PeftModel":
        keep_layout(model)
        return super()._wrap(model, config)
