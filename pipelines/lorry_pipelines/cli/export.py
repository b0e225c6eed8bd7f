"""``lorry export``: adapters for programs that know nothing of Lorry."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from lorry_components.models.bases import resolve_base
from lorry_registry.cli.edge import format_examples, json_option, load_settings, open_registry, print_json
from lorry_registry.cli.lazy import LazyGroup
from lorry_registry.errors import AdapterRejectedError, UsageError
from lorry_registry.input_specs import BaseSpec
from lorry_registry.registry import Registry, Resolution
from lorry_registry.settings import Settings
from lorry_registry.vllm_support import find_highest_rank, find_rank_limit, list_refusals

tasks_argument = click.argument("tasks", metavar="TASK...", nargs=-1, required=True)


@click.group(cls=LazyGroup, epilog=format_examples("lorry export vllm summaries titles"))
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


def _describe_vllm(registry: Registry, settings: Settings, tasks: Sequence[str]) -> VllmCommand:
    champions = [registry.resolve(task) for task in dict.fromkeys(tasks)]
    configs = [_read_config(registry, champion) for champion in champions]
    _refuse_unfit(champions, configs)
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


def _read_config(registry: Registry, champion: Resolution) -> dict[str, Any]:
    document = registry.fetch(champion.adapter_id) / "adapter_config.json"
    config: dict[str, Any] = json.loads(document.read_text("utf-8"))
    return config


def _refuse_unfit(champions: Sequence[Resolution], configs: Sequence[dict[str, Any]]) -> None:
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
