"""``lorry export``: adapters for programs that know nothing of Lorry."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lorry_components.models.bases import resolve_base
from lorry_components.process_setup import ease_garbage_collection, quiet_libraries
from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    load_settings,
    open_registry,
    print_json,
    task_argument,
    version_option,
)
from lorry_registry.cli.lazy import LazyCommand, LazyGroup
from lorry_registry.cli.prose import print_line
from lorry_registry.errors import AdapterRejectedError, UsageError
from lorry_registry.records.vllm_support import find_highest_rank, find_rank_limit, list_refusals
from lorry_registry.registry import Registry, Resolution
from lorry_registry.settings import Settings
from lorry_registry.tasks.input_specs import BaseSpec
from lorry_registry.text.sizes import format_size

tasks_argument = click.argument("tasks", metavar="TASK...", nargs=-1, required=True)


@click.group(
    cls=LazyGroup,
    lazy_commands=(
        LazyCommand(
            "kserve",
            f"{__name__}_kserve:export_kserve",
            "Print the objects by which KServe serves the champions of tasks, as YAML.",
        ),
    ),
    epilog=format_examples("lorry export vllm summaries titles"),
)
def export() -> None:
    """Hand adapters to programs that know nothing of Lorry."""


@dataclass(frozen=True, slots=True)
class VllmCommand:
    """How vLLM is started for some tasks.

    Attributes:
        environment: The variables it needs.
        command: The command and its arguments.
        models: The names of the adapters by task; each holds the digest of the champion.
    """

    environment: dict[str, str]
    command: list[str]
    models: dict[str, str]


@export.command("vllm", epilog=format_examples("lorry export vllm summaries titles"))
@tasks_argument
@json_option
def export_vllm(tasks: tuple[str, ...], as_json: bool) -> None:
    """Print how vLLM serves the champions of tasks.

    vLLM finds them by the plugin lorry-vllm. All tasks have the same base, and vLLM can serve each of them;
    otherwise every reason is listed, and the exit code is 6.
    """
    settings = load_settings()
    found = _describe_vllm(open_registry(), settings, tasks)
    if as_json:
        print_json({"environment": found.environment, "command": found.command, "models": found.models})
        return
    for name, value in found.environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")
    click.echo(shlex.join(found.command))
    for task, model in found.models.items():
        click.echo(f"# {task}: model {model}")


@export.command(
    "merged",
    epilog=format_examples(
        "lorry export merged reviews ./reviews", "lorry export merged reviews ./v2 --version 2"
    ),
)
@task_argument
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@version_option
@json_option
def export_merged(task: str, folder: Path, version: int | None, as_json: bool) -> None:
    """Write base and adapter as one model.

    DIR must not exist; it appears whole or not at all. Plain transformers loads it, and DIR/README.md has the
    lines for it. The inputs that were recorded at registration are run on what was written, and the largest
    difference is said. Methods that change no weights of the base, such as soft tokens, are refused with exit
    code 6.
    """
    settings = load_settings()
    registry = open_registry()
    found = registry.resolve(task, version)
    ease_garbage_collection()
    quiet_libraries()
    from lorry_components.export.merging import merge_adapter

    merged = merge_adapter(
        registry.fetch(found.adapter_id), folder, expected_id=found.adapter_id, place=settings.base_place
    )
    if as_json:
        print_json(
            {
                "task": found.task,
                "version": found.version,
                "adapter_id": found.adapter_id,
                "path": str(folder.absolute()),
                "size_bytes": merged.size_bytes,
                "difference": merged.difference,
                "tolerance": merged.tolerance,
            }
        )
        return
    size = format_size(merged.size_bytes)
    print_line(
        f"{found.task} v{found.version} on its base ({size}) is in {folder}; its outputs differ by at most "
        f"{merged.difference:.1g} from those recorded, and {merged.tolerance:.1g} may be rounding"
    )


@export.command(
    "hub",
    epilog=format_examples(
        "lorry export hub reviews ./reviews --base team/encoder --license apache-2.0",
        "lorry export hub reviews ./reviews --push team/reviews",
    ),
)
@task_argument
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@version_option
@click.option(
    "--base", metavar="OWNER/NAME", help="The base's id on the hub, where the task has another name for it."
)
@click.option("--license", "license_id", metavar="ID", help="The adapter's licence, by its id on the hub.")
@click.option("--push", metavar="OWNER/NAME", help="Upload it to this repository, private if it is new.")
@json_option
def export_hub(
    task: str,
    folder: Path,
    version: int | None,
    base: str | None,
    license_id: str | None,
    push: str | None,
    as_json: bool,
) -> None:
    """Write an adapter as a folder for the hub.

    PEFT's files, with the base's id on the hub, and a card whose metadata hold base, licence and metrics. DIR
    must not exist; it appears whole or not at all. --push needs a token: HF_TOKEN, or 'hf auth login'.
    """
    registry = open_registry()
    found = registry.resolve(task, version)
    base = base or _require_hub_id(found)
    quiet_libraries()
    from lorry_components.export.hub_export import push_folder, write_hub_folder

    write_hub_folder(registry.fetch(found.adapter_id), folder, base=base, license_id=license_id)
    url = push_folder(folder, push) if push else None
    if as_json:
        print_json(
            {
                "task": found.task,
                "version": found.version,
                "adapter_id": found.adapter_id,
                "path": str(folder.absolute()),
                "base": base,
                "url": url,
            }
        )
        return
    print_line(f"{found.task} v{found.version} for {base} is in {folder}{f' and at {url}' if url else ''}")


def _require_hub_id(found: Resolution) -> str:
    spec = BaseSpec(model=found.manifest.base.model, revision=found.manifest.base.revision)
    if spec.is_here or spec.is_named:
        raise UsageError(
            f"its base is {spec.model}, which is no id on the hub",
            where=found.task,
            todo="name it: --base OWNER/NAME",
        )
    return spec.model


def _describe_vllm(registry: Registry, settings: Settings, tasks: Sequence[str]) -> VllmCommand:
    champions = [registry.resolve(task) for task in dict.fromkeys(tasks)]
    configs = [read_config(registry, champion) for champion in champions]
    refuse_unfit(champions, configs)
    limit = find_rank_limit(max(map(find_highest_rank, configs)))
    base = _find_base(champions[0], settings)
    command = ["vllm", "serve", base, "--enable-lora", "--max-lora-rank", str(limit)]
    return VllmCommand(
        environment={
            "VLLM_PLUGINS": "lorry",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "LORRY_STORE": settings.store,
        },
        command=[*command, "--max-loras", str(len(champions))],
        models={each.task: f"{each.task}@{each.adapter_id}" for each in champions},
    )


def read_config(registry: Registry, champion: Resolution) -> dict[str, Any]:
    """Return PEFT's configuration of an adapter."""
    document = registry.fetch(champion.adapter_id) / "adapter_config.json"
    config: dict[str, Any] = json.loads(document.read_text("utf-8"))
    return config


def refuse_unfit(champions: Sequence[Resolution], configs: Sequence[dict[str, Any]]) -> None:
    """Refuse adapters that one vLLM cannot serve.

    Raises:
        AdapterRejectedError: Some have what vLLM does not take.
        UsageError: They have several bases.
    """
    reasons = [
        f"{champion.task}: {reason}"
        for champion, config in zip(champions, configs, strict=True)
        for reason in list_refusals(champion.manifest, config)
    ]
    if reasons:
        raise AdapterRejectedError(
            f"vLLM cannot serve all of them: {'; '.join(reasons)}",
            todo="leave these out and serve them with `lorry serve`, or train them with method lora",
        )
    bases = {champion.manifest.base.fingerprint: champion for champion in champions}
    if len(bases) > 1:
        names = "; ".join(f"{each.task} has {each.manifest.base.model}" for each in bases.values())
        raise UsageError(
            f"these tasks have {len(bases)} bases: {names}",
            todo="start one vLLM for each base, with its tasks",
        )


def _find_base(champion: Resolution, settings: Settings) -> str:
    base = champion.manifest.base
    spec = BaseSpec(model=base.model, revision=base.revision, fingerprint=base.fingerprint)
    return str(resolve_base(spec.find_in(settings.base_place)).folder)
