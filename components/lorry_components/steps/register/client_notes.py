"""Notes for the use of an adapter without Lorry: with plain PEFT, or on a server.

Each sentence was found in the client's own source, or by loading adapters with it (PEFT 0.21, vLLM 0.34).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lorry_components.models.model_family import is_decoder_class
from lorry_registry.manifest import Manifest
from lorry_registry.records.vllm_support import (
    DEFAULT_RANK,
    find_highest_rank,
    find_rank_limit,
    list_refusals,
)

_SEQUENCE_KINDS = frozenset({"text-classification", "regression"})
# Families of bases that tell the two texts of a row apart by token types.
_WITH_TOKEN_TYPES = ("Albert", "Bert", "BigBird", "ConvBert", "Electra", "MobileBert", "RoFormer", "XLNet")
# Those whose tokens PEFT puts before the input as vectors.
_VECTORS_BEFORE = frozenset({"PROMPT_TUNING", "P_TUNING"})
_PROMPTS = _VECTORS_BEFORE | {"PREFIX_TUNING"}


def is_readable_by_peft(config: Mapping[str, Any]) -> bool:
    """Return whether PEFT knows the method of a stored configuration, ``adapter_config.json``."""
    return isinstance(config.get("peft_type"), str) and not config["peft_type"].startswith("LORRY_")


def list_client_notes(manifest: Manifest, config: Mapping[str, Any]) -> list[str]:
    """Return what applies to an adapter, a note each.

    Args:
        manifest: The adapter.
        config: Its stored configuration.
    """
    if not is_readable_by_peft(config):
        return [f"PEFT cannot read it: `{manifest.method}` is stored in a layout of Lorry's own."]
    return [*_list_peft_notes(manifest, config), *_list_server_notes(manifest, config)]


def _list_peft_notes(manifest: Manifest, config: Mapping[str, Any]) -> Iterator[str]:
    kind, architecture = manifest.kind, manifest.base.architecture
    # A head of Lorry's own is no part of such a class: the card has the lines that put it together.
    if kind in _SEQUENCE_KINDS and manifest.head is None:
        outputs = len(manifest.labels) if manifest.labels else 1
        yield (
            "With PEFT, load the base as `AutoModelForSequenceClassification.from_pretrained(…, "
            f"num_labels={outputs})`: the head has {outputs} output{'' if outputs == 1 else 's'}, and PEFT's "
            "configuration does not say so."
        )
        if config["peft_type"] in _VECTORS_BEFORE and is_decoder_class(architecture):
            yield (
                "PEFT gives the base vectors in place of words, by which a head on a decoder cannot tell "
                "where padding begins: with PEFT, predict one text at a time."
            )
    is_prompt = config["peft_type"] in _PROMPTS
    if kind == "question-answering" and not is_prompt and architecture.startswith(_WITH_TOKEN_TYPES):
        yield (
            "PEFT's `PeftModelForQuestionAnswering` does not pass `token_type_ids` on, without which this "
            "base answers differently: call `merge_and_unload()` on it first, or its `get_base_model()`."
        )


def _list_server_notes(manifest: Manifest, config: Mapping[str, Any]) -> Iterator[str]:
    if config["peft_type"] != "LORA" or manifest.kind == "image-generation":
        return
    reasons = list_refusals(manifest, config)
    if reasons:
        yield f"vLLM refuses it: {'; '.join(reasons)}."
    elif config.get("modules_to_save"):
        yield "vLLM takes its head (`modules_to_save`) from version 0.33 on; older ones refuse it."
    yield from _describe_rank(find_highest_rank(config), _read_options(manifest).get("r", 8))
    if config.get("use_rslora"):
        yield (
            "Its scale is alpha / sqrt(r) (`use_rslora`), which vLLM heeds. SGLang ignores it "
            "(sgl-project/sglang#40835), and so does LoRAX before its pull request 299: they answer wrongly."
        )


def _describe_rank(rank: int, trained: int) -> Iterator[str]:
    limit = find_rank_limit(rank)
    doubled = f", twice the {trained} of its training, for it began from the base's own weights"
    cause = doubled if rank == 2 * trained else ""
    if limit is not None and limit > DEFAULT_RANK:
        yield f"Its rank is {rank}{cause}: vLLM needs `--max-lora-rank {limit}` or more."


def _read_options(manifest: Manifest) -> Mapping[str, Any]:
    method = manifest.recipe.get("method")
    return method if isinstance(method, Mapping) else {}
