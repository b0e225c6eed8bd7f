"""Which image each step runs in, and that no step in the slim one needs what only the other one holds."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.tasks.resolution import resolve_task
from lorry_pipelines.cluster.profile import CLUSTER_STEPS, ClusterProfile
from lorry_pipelines.step_images import SLIM_STEPS, choose_images
from lorry_registry.settings import Settings
from lorry_registry.tasks.task_spec import TaskSpec

# What infra/images/locks/train.txt and torch-cpu.txt have besides steps.txt, as it is imported.
ONLY_IN_TRAIN = (
    *(
        "torch",
        "peft",
        "accelerate",
        "diffusers",
        "scipy",
        "sklearn",
        "matplotlib",
        "nltk",
        "sacrebleu",
        "networkx",
    ),
    *("sympy", "psutil", "joblib"),
)
# Runs code as in an image without these, and says what else of them it imported, which is nothing.
BLOCKED = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
{code}
"""


def run_without(names: tuple[str, ...], code: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", BLOCKED.format(blocked=names, code=code)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def test_every_step_can_be_imported_without_the_large_libraries() -> None:
    imports = "\n".join(
        f"import lorry_components.steps.{step}.component, lorry_components.steps.{step}.entry"
        for step in CLUSTER_STEPS
    )
    run_without((*ONLY_IN_TRAIN, "transformers", "datasets", "pandas"), imports)


@pytest.mark.parametrize("style", ["t5", "gemma3_text"])
def test_data_are_prepared_without_torch(
    make_generator_spec: Callable[..., TaskSpec],
    tmp_path: Path,
    style: str,
) -> None:
    """Of the steps in the slim image this one does most: it counts answers in the base's tokens."""
    spec = make_generator_spec(style, data={"max_target": 4})
    code = (
        "from pathlib import Path\n"
        "from lorry_components.steps.prepare_data.step import prepare_data\n"
        "from lorry_components.tasks.resolution import resolve_task\n"
        "from lorry_registry.tasks.task_spec import TaskSpec\n"
        f"task = resolve_task(TaskSpec.model_validate_json({spec.model_dump_json()!r}))\n"
        "print(task.base_identity.fingerprint)\n"
        f"card = prepare_data(task, Path({str(tmp_path / 'data')!r}), base=task.base.folder)\n"
        "print(*card.warnings)\n"
    )
    fingerprint, warnings = run_without(ONLY_IN_TRAIN, code).splitlines()
    assert fingerprint == resolve_task(spec).base_identity.fingerprint
    assert "max_target" in warnings


def test_only_steps_without_a_model_run_in_the_slim_image(tmp_path: Path) -> None:
    settings = Settings.load({"LORRY_IMAGE": "train:1", "LORRY_SLIM_IMAGE": "slim:1"}, tmp_path)
    images = choose_images(settings)
    chosen = {step: images.find(step) for step in CLUSTER_STEPS}
    assert {step for step, image in chosen.items() if image == "slim:1"} == set(SLIM_STEPS)
    assert {chosen[step] for step in ("finetune", "evaluate", "register")} == {"train:1"}
    assert [(image.name, image.origin) for image in images] == [
        ("train:1", "LORRY_IMAGE"),
        ("slim:1", "LORRY_SLIM_IMAGE"),
    ]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (None, ["train:1", "slim:1"]),
        ({"train": "train:2", "slim": "slim:2"}, ["train:2", "slim:2"]),
        # Never the slim image of another version beside it.
        ({"train": "train:2"}, ["train:2"]),
    ],
)
def test_a_profile_counts_for_more_than_the_settings(
    tmp_path: Path, images: dict[str, Any] | None, expected: list[str]
) -> None:
    settings = Settings.load({"LORRY_IMAGE": "train:1", "LORRY_SLIM_IMAGE": "slim:1"}, tmp_path)
    profile = ClusterProfile.model_validate({"images": images} if images else {})
    assert [image.name for image in choose_images(settings, profile)] == expected


def test_without_a_slim_image_all_steps_run_in_one(tmp_path: Path) -> None:
    images = choose_images(Settings.load({"LORRY_IMAGE": "train:1"}, tmp_path))
    assert {images.find(step) for step in CLUSTER_STEPS} == {"train:1"}
