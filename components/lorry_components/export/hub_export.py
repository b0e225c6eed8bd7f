"""An adapter in a folder as the hub's conventions want it: PEFT's files, and a card with metadata."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorry_components.export.folders import fill_folder
from lorry_components.steps.register.client_notes import is_readable_by_peft
from lorry_components.steps.register.model_card import render_card
from lorry_components.steps.register.peft_usage import write_peft_usage
from lorry_registry.adapters.verification import verify_adapter
from lorry_registry.errors import UsageError
from lorry_registry.manifest import Evaluation, Manifest

_CONFIG = "adapter_config.json"
_CARD = "README.md"
# The hub's names for the kinds, where it has one.
_HUB_TASKS = {
    "regression": "text-classification",
    "text-to-text": "text2text-generation",
    "knowledge-probing": "fill-mask",
}


def write_hub_folder(adapter: Path, target: Path, *, base: str, license_id: str | None) -> Manifest:
    """Copy an adapter to a new folder in which it names its base as the hub does.

    The configuration and the card differ from the registered ones, so the manifest is not copied: the card
    names the adapter's id.

    Args:
        adapter: The adapter's folder.
        target: The new folder; it appears whole or not at all.
        base: The hub id of the base, ``owner/name``.
        license_id: The licence's id on the hub; None: the card names none.

    Returns:
        The adapter's manifest.

    Raises:
        AdapterRejectedError: The adapter is damaged.
        ConflictError: The folder exists.
        StoreError: The folder cannot be written.
    """
    manifest = verify_adapter(adapter)
    with fill_folder(target) as folder:
        for entry in manifest.files:
            shutil.copyfile(adapter / entry.name, folder / entry.name)
        config: dict[str, Any] = json.loads((adapter / _CONFIG).read_text("utf-8"))
        if is_readable_by_peft(config):
            config |= {"base_model_name_or_path": base, "revision": manifest.base.revision}
            (folder / _CONFIG).write_text(f"{json.dumps(config, indent=2, sort_keys=True)}\n", "utf-8")
        card = render_hub_card(manifest, config, write_peft_usage(manifest, adapter), base, license_id)
        (folder / _CARD).write_text(card, "utf-8")
    return manifest


def render_hub_card(
    manifest: Manifest, config: Mapping[str, Any], peft_usage: str, base: str, license_id: str | None
) -> str:
    """Return the registered card under metadata in the hub's form, evaluation results among them."""
    from huggingface_hub import ModelCardData

    _, _, body = render_card(manifest, config, peft_usage).removeprefix("---\n").partition("\n---\n")
    data = ModelCardData(
        base_model=base,
        base_model_relation="adapter",
        license=license_id,
        library_name="peft" if is_readable_by_peft(config) else "lorry",
        model_name=manifest.task,
        pipeline_tag=_HUB_TASKS.get(manifest.kind, manifest.kind),
        tags=["lorry", manifest.kind, manifest.method],
        eval_results=_list_results(manifest.kind, manifest.task, manifest.evaluation),
    )
    return f"---\n{data.to_yaml()}\n---\n{body}\nAdapter id: `{manifest.adapter_id}`.\n"


def _list_results(kind: str, task: str, evaluation: Evaluation) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=_HUB_TASKS.get(kind, kind),
            dataset_type=task,
            dataset_name=f"{task}, {evaluation.examples} {evaluation.split} rows",
            dataset_split=evaluation.split,
            metric_type=name,
            metric_value=metric.value,
        )
        for name, metric in evaluation.list_metrics()
    ]


def push_folder(folder: Path, repository: str) -> str:
    """Upload a folder to a model repository on the hub, which is made private if it is new.

    Args:
        folder: What to upload.
        repository: ``owner/name``.

    Returns:
        The address of the commit.

    Raises:
        UsageError: No token is set.
    """
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if token is None:
        raise UsageError("no token for the hub is set", todo="export HF_TOKEN=…, or run `hf auth login`")
    api = HfApi(token=token)
    api.create_repo(repository, private=True, exist_ok=True)
    commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Upload {folder.name}")
    return str(commit.commit_url)
