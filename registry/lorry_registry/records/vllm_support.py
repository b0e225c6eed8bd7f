"""A check that vLLM serves an adapter, by what its source demands of one.

Read in vLLM 0.33 and 0.34: ``vllm/lora/peft_helper.py`` refuses features of a configuration and modules to
save, ``vllm/config/lora.py`` has the ranks, and ``vllm/model_executor/models`` the classes that take LoRA.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lorry_registry.manifest import Manifest

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
DEFAULT_RANK = 16
"""The highest rank that vLLM serves unless it gets ``--max-lora-rank``."""

_HEADS = frozenset({"classifier", "score"})
# Tasks that need an adapter on a class for causal language models, and those on one with a head.
_CAUSAL_KINDS = frozenset({"text-generation", "knowledge-probing"})
_HEAD_KINDS = frozenset({"text-classification", "regression"})
_CAUSAL_CLASSES = ("ForCausalLM", "LMHeadModel")
_HEAD_CLASS = "ForSequenceClassification"


def find_rank_limit(rank: int) -> int | None:
    """Return the value of ``--max-lora-rank`` that a rank needs; None: vLLM serves no such rank."""
    return next((limit for limit in _RANKS if limit >= rank), None)


def find_highest_rank(config: Mapping[str, Any]) -> int:
    """Return the highest rank of a LoRA configuration, ``rank_pattern`` included."""
    return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])


def list_refusals(manifest: Manifest, config: Mapping[str, Any]) -> list[str]:
    """Return why vLLM cannot serve an adapter, a reason each; none: it can.

    Args:
        manifest: The adapter.
        config: Its stored configuration, ``adapter_config.json``.
    """
    if config.get("peft_type") != "LORA":
        return [f"its method is {manifest.method}, and vLLM serves LoRA alone"]
    return list(_find_refusals(manifest, config))


def _find_refusals(manifest: Manifest, config: Mapping[str, Any]) -> Iterator[str]:
    architecture = manifest.base.architecture
    if manifest.kind not in _CAUSAL_KINDS | _HEAD_KINDS:
        yield f"vLLM has no LoRA for tasks of kind {manifest.kind}"
    elif manifest.kind in _CAUSAL_KINDS and not architecture.endswith(_CAUSAL_CLASSES):
        yield f"vLLM has no LoRA for tasks of kind {manifest.kind} on {architecture}"
    elif manifest.kind in _HEAD_KINDS and not architecture.endswith(_HEAD_CLASS):
        yield f"its base is a {architecture}, and vLLM takes heads on a base that has one ({_HEAD_CLASS})"
    if config.get("use_dora"):
        yield "it is a DoRA"
    if config.get("lora_bias") or config.get("bias", "none") != "none":
        yield "it has biases"
    if manifest.head is not None:
        yield f"its head reads the {manifest.head.place} of the last states, which vLLM's classes do not"
    elif unknown := sorted(set(config.get("modules_to_save") or ()) - _HEADS):
        yield f"it has modules of its own that vLLM does not load: {', '.join(unknown)}"
    rank = find_highest_rank(config)
    if find_rank_limit(rank) is None:
        yield f"its rank is {rank}, and vLLM serves none above {_RANKS[-1]}"
