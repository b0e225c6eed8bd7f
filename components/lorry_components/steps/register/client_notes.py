"""What a person must know to use an adapter without Lorry: with plain PEFT, or on a server.

Each sentence was found in the client's own source, or by loading adapters with it (PEFT 0.21, vLLM 0.27).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lorry_components.models.reading_order import is_decoder_class
from lorry_registry.manifest import Manifest

_SEQUENCE_KINDS = frozenset({"text-classification", "regression"})
# Families of bases that tell the two texts of a row apart by token types.
_WITH_TOKEN_TYPES = ("Albert", "Bert", "BigBird", "ConvBert", "Electra", "MobileBert", "RoFormer", "XLNet")
# Those whose tokens PEFT puts before the input as vectors.
_VECTORS_BEFORE = frozenset({"PROMPT_TUNING", "P_TUNING"})
_PROMPTS = _VECTORS_BEFORE | {"PREFIX_TUNING"}
# The greatest ranks that vLLM can be told to serve; without being told it serves the second.
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_VLLM_USUAL = 16


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
    if config.get("use_dora"):
        yield "vLLM refuses it: it is a DoRA."
    if config.get("modules_to_save"):
        yield "vLLM refuses it: it has a head (`modules_to_save`)."
    yield from _describe_rank(int(config["r"]), _read_options(manifest).get("r", 8))
    if config.get("use_rslora"):
        yield (
            "Its scale is alpha / sqrt(r) (`use_rslora`), which vLLM heeds. SGLang ignores it "
            "(sgl-project/sglang#40835), and so does LoRAX before its pull request 299: they answer wrongly."
        )


def _describe_rank(rank: int, trained: int) -> Iterator[str]:
    served = next((known for known in _VLLM_RANKS if known >= rank), None)
    doubled = f", twice the {trained} of its training, for it began from the base's own weights"
    cause = doubled if rank == 2 * trained else ""
    if served is None:
        yield f"Its rank is {rank}{cause}: vLLM serves none above {_VLLM_RANKS[-1]}."
    elif served > _VLLM_USUAL:
        yield f"Its rank is {rank}{cause}: vLLM needs `--max-lora-rank {served}` or more."


def _read_options(manifest: Manifest) -> Mapping[str, Any]:
    method = manifest.recipe.get("method")
    return method if isinstance(method, Mapping) else {}
