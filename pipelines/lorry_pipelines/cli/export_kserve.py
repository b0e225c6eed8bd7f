"""``lorry export kserve``: the objects by which KServe serves the champions of tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
import yaml

from lorry_components.serving.catalogue import check_kind
from lorry_components.task_types.generation.text_generation import TextGeneration
from lorry_pipelines.cli.export import read_config, refuse_unfit, tasks_argument
from lorry_registry.cli.edge import format_examples, load_settings, open_registry, read_environment
from lorry_registry.errors import UsageError
from lorry_registry.records.vllm_support import find_highest_rank, find_rank_limit
from lorry_registry.registry import Registry, Resolution
from lorry_registry.settings import Settings
from lorry_registry.tasks.input_specs import BaseSpec

# What boto3 reads to find S3; it is no secret.
_PLACES = ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3")
_KEYS = {"AWS_ACCESS_KEY_ID": "access-key-id", "AWS_SECRET_ACCESS_KEY": "secret-access-key"}
_PORT, _TOKENS = 8080, "/etc/lorry"


@click.command(
    epilog=format_examples(
        "lorry export kserve reviews films --image registry.example.org/lorry-serve@sha256:DIGEST",
        "lorry export kserve summaries titles | kubectl apply -f -",
    )
)
@tasks_argument
@click.option("--image", help="The image of lorry serve, by digest.")
@click.option("--name", default="lorry", show_default=True, help="What the names of the objects begin with.")
def export_kserve(tasks: tuple[str, ...], image: str | None, name: str) -> None:
    """Print the objects by which KServe serves the champions of tasks, as YAML.

    Tasks that lorry serve answers for become one InferenceService, which follows promotions; those that
    generate text with a LoRA become one LLMInferenceService, which serves the champions of now.
    """
    objects = describe_objects(
        open_registry(), load_settings(), read_environment(), tasks, image=image, name=name
    )
    click.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)


def describe_objects(
    registry: Registry,
    settings: Settings,
    environment: Mapping[str, str],
    tasks: Sequence[str],
    *,
    image: str | None,
    name: str,
) -> list[dict[str, Any]]:
    """Return the objects.

    Raises:
        UsageError: The store is not on S3, no image is named, or a task cannot be served by either.
        AdapterRejectedError: vLLM cannot serve a task that generates text.
    """
    if not settings.store.startswith("s3://"):
        raise UsageError("a cluster cannot read it", where=settings.store, todo="set LORRY_STORE to s3://…")
    champions = [registry.resolve(task) for task in dict.fromkeys(tasks)]
    written = [each for each in champions if each.manifest.kind == TextGeneration.name]
    others = [each for each in champions if each not in written]
    for champion in others:
        check_kind(champion.task, champion.manifest.kind)
    objects = []
    if others:
        if image is None or "@sha256:" not in image:
            raise UsageError(
                "the image of lorry serve is not named by digest",
                where="--image",
                todo="give --image NAME@sha256:DIGEST; infra/images/README.md tells how it is built",
            )
        container = _describe_container([each.task for each in others], settings, environment, image)
        objects.append(_describe_server(f"{name}-serve", container))
    if written:
        configs = [read_config(registry, champion) for champion in written]
        refuse_unfit(written, configs)
        limit = find_rank_limit(max(map(find_highest_rank, configs)))
        objects.append(_describe_llm(f"{name}-llm", written, _find_base_address(written[0], settings), limit))
    return objects


def _describe_server(name: str, container: dict[str, Any]) -> dict[str, Any]:
    # As infra/k8s/components/serve has it; a test compares them.
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {
            "predictor": {
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "runAsGroup": 10001,
                    "fsGroup": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
                "volumes": [
                    {"name": "tmp", "emptyDir": {"sizeLimit": "10Gi"}},
                    {"name": "tokens", "secret": {"secretName": "lorry-serve-tokens"}},
                ],
            }
        },
    }


def _describe_container(
    tasks: Sequence[str], settings: Settings, environment: Mapping[str, str], image: str
) -> dict[str, Any]:
    places = {"LORRY_STORE": settings.store, "LORRY_BASES": settings.bases}
    places |= {variable: environment.get(variable, "") for variable in _PLACES}
    places |= {"LORRY_HOME": "/tmp/lorry", "HOME": "/tmp"}  # noqa: S108 - a volume of the pod's own
    probe = {"httpGet": {"path": "/v2/health/live", "port": _PORT}, "timeoutSeconds": 5}
    ready = {"httpGet": {"path": "/v2/health/ready", "port": _PORT}, "timeoutSeconds": 5}
    return {
        "name": "kserve-container",
        "image": image,
        "command": ["lorry", "serve"],
        "args": ["--host=0.0.0.0", f"--port={_PORT}", f"--tokens={_TOKENS}/tokens.txt", "--", *tasks],
        "ports": [{"containerPort": _PORT, "protocol": "TCP"}],
        "env": [
            *({"name": variable, "value": value} for variable, value in places.items() if value),
            *(
                {"name": variable, "valueFrom": {"secretKeyRef": {"name": "lorry-s3", "key": key}}}
                for variable, key in _KEYS.items()
            ),
        ],
        "startupProbe": {**probe, "failureThreshold": 120},
        "livenessProbe": probe,
        "readinessProbe": ready,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": "1", "memory": "2Gi"},
            "limits": {"cpu": "4", "memory": "4Gi"},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "tokens", "mountPath": _TOKENS, "readOnly": True},
        ],
    }


def _describe_llm(
    name: str, champions: Sequence[Resolution], base: str, highest_rank: int | None
) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": name},
        "spec": {
            "model": {
                "uri": base,
                "name": f"{name}-base",
                "lora": {
                    "maxRank": highest_rank,
                    # The address of an adapter in the store ends in its digest.
                    "adapters": [{"name": each.task, "uri": each.uri} for each in champions],
                },
            },
            "router": {"route": {}, "gateway": {}, "scheduler": {}},
        },
    }


def _find_base_address(champion: Resolution, settings: Settings) -> str:
    base = champion.manifest.base
    spec = BaseSpec(model=base.model, revision=base.revision).find_in(settings.base_place)
    if spec.is_here:
        raise UsageError(
            f"its base is {base.model}, which is on no S3 and no hub",
            where=champion.task,
            todo="push it to LORRY_BASES=s3://…: lorry bases push, and train with base.model: bases:NAME",
        )
    if spec.is_named:
        return f"{settings.bases.rstrip('/')}/{spec.name}/{base.fingerprint.removeprefix('sha256:')}"
    return f"hf://{base.model}:{base.revision}"
