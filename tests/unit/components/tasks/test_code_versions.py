"""The versions of code: whoever changes what is learned has to say so."""

import ast
import hashlib
import io
import json
import os
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lorry_components
from lorry_components.methods import METHODS
from lorry_components.task_types import TASK_TYPES
from lorry_components.tasks.code_versions import PROBE_VERSION, STEP_VERSIONS

PACKAGE = Path(lorry_components.__file__).parent
GOLDEN = Path(__file__).with_name("code_versions.json")
# What the two steps compute with, beside the classes of the task. Reading what was written, uploading it and
# telling of it changes nothing that is learned.
STEP_SOURCES = {
    "prepare_data": [
        "steps/prepare_data/step.py",
        *("data/examples.py", "data/splits.py", "data/checks.py", "data/checked_source.py"),
        *(
            "data/records.py",
            "data/parquet_rows.py",
            "data/text_tables.py",
            "data/layout.py",
            "data/reading.py",
        ),
        "data/templates.py",
        *("data/prepared.py", "data/image_files.py"),
    ],
    "finetune": [
        "steps/finetune/step.py",
        *(f"training/{name}.py" for name in ("assembly", "resumption", "trainer")),
        "training/checkpoints/checkpoint_files.py",
        *(f"training/distributed/{name}.py" for name in ("process_group", "sharding")),
        *(
            f"training/kernels/{name}.py"
            for name in ("activation_cache", "fused_lora", "packing", "sampler", "supervised_logits")
        ),
        *(
            f"training/probe/{name}.py"
            for name in ("frozen_features", "head_fitting", "linear_probe", "probe_fallback")
        ),
        *(
            f"training/setup/{name}.py"
            for name in ("arguments", "head_rate", "length", "model_setup", "number_head", "optimizers")
        ),
        *(f"training/setup/{name}.py" for name in ("precision", "starting_adapter")),
        "metrics/randomization.py",
        *(f"models/{name}.py" for name in ("blocks", "dimensions", "dropout_fields", "pooled_model")),
        *(f"models/{name}.py" for name in ("pooling", "pretrained", "quantization", "model_family")),
        "models/stored_base.py",
    ],
}


def list_parts() -> dict[str, tuple[int, list[str]]]:
    """Return each part -> its version, and the files that decide what it computes."""
    parts: dict[str, tuple[int, list[str]]] = {
        f"step.{name}": (version, STEP_SOURCES[name]) for name, version in STEP_VERSIONS.items()
    }
    parts["head.probe"] = (PROBE_VERSION, ["training/resumption.py", "training/trainer.py"])
    classes: list[tuple[str, Mapping[str, type[Any]]]] = [("kind", TASK_TYPES), ("method", METHODS)]
    for room, known in classes:
        for name, cls in known.items():
            parts[f"{room}.{name}"] = (cls.code_version, list_files(cls))
    return parts


def list_files(cls: type[Any]) -> list[str]:
    """Return the files of a class and its bases, and those of the same room that they import."""
    waiting = [base.__module__ for base in cls.__mro__ if base.__module__.startswith("lorry_components.")]
    room = ".".join(cls.__module__.split(".")[:2])
    found: set[str] = set()
    while waiting:
        module = waiting.pop()
        path = PACKAGE.parent / f"{module.replace('.', '/')}.py"
        if module in found or not module.startswith(f"{room}.") or not path.is_file():
            continue
        found.add(module)
        waiting += list_imports(path)
    return sorted(f"{module.replace('.', '/')}.py".removeprefix("lorry_components/") for module in found)


def list_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def hash_source(source: str) -> str:
    """Return a digest of what a source computes: comments, docstrings, imports and blank lines left out."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        has_docstring = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        inner = node.body if has_docstring and ast.get_docstring(node, clean=False) is not None else []
        if isinstance(node, ast.Import | ast.ImportFrom):
            inner = [node]
        for part in inner[:1]:
            lines[part.lineno - 1 : part.end_lineno] = [""] * (part.end_lineno - part.lineno + 1)
    kept = [line.rstrip() for line in lines if line.strip()]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()[:16]


def find_unsaid(
    parts: Mapping[str, tuple[int, list[str]]], hashes: Mapping[str, str], golden: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Return the parts that have changed and kept their version -> the files that changed."""
    return {
        part: changed
        for part, (version, files) in parts.items()
        if version == golden["versions"].get(part)
        and (changed := [file for file in files if hashes[file] != golden["files"].get(file)])
    }


def test_code_that_changed_has_another_version_or_was_said_to_learn_the_same() -> None:
    parts = list_parts()
    files = sorted({file for _, own in parts.values() for file in own})
    hashes = {file: hash_source((PACKAGE / file).read_text("utf-8")) for file in files}
    versions = {part: version for part, (version, _) in sorted(parts.items())}
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps({"versions": versions, "files": hashes}, indent=1) + "\n", "utf-8")
    golden = json.loads(GOLDEN.read_text("utf-8"))
    advice = (
        "if the same task would learn something else now, raise the version (STEP_VERSIONS, or code_version "
        "of the class), and in any case run this test once with UPDATE_GOLDEN=1"
    )
    assert find_unsaid(parts, hashes, golden) == {}, advice
    assert golden == {"versions": versions, "files": hashes}, advice


def test_every_version_is_at_least_one() -> None:
    assert {version >= 1 for version, _ in list_parts().values()} == {True}


def test_what_a_method_computes_with_is_found() -> None:
    files = list_parts()["method.qlora"][1]
    assert {"methods/base.py", "methods/peft/lora.py", "methods/peft/qlora.py", "methods/peft/base.py"} <= {
        *files
    }
    assert "methods/native/bitfit.py" not in files


def test_comments_docstrings_and_imports_change_no_hash() -> None:
    plain = "import os\n\n\ndef add(a, b):\n    return a + b\n"
    told = 'from x import (\n    y,\n)\ndef add(a, b):\n    """Add."""\n    return a + b  # the sum\n'
    assert hash_source(plain) == hash_source(told)
    assert hash_source(plain) != hash_source(plain.replace("a + b", "a - b"))
    assert hash_source("if a:\n    b()\n    c()\n") != hash_source("if a:\n    b()\nc()\n")


def test_a_part_that_changed_is_named_until_its_version_is_another() -> None:
    golden = {"versions": {"method.x": 1, "method.y": 1}, "files": {"base.py": "old", "y.py": "old"}}
    hashes = {"base.py": "new", "y.py": "old"}
    both = {"method.x": (1, ["base.py"]), "method.y": (1, ["y.py", "base.py"])}
    assert find_unsaid(both, hashes, golden) == {"method.x": ["base.py"], "method.y": ["base.py"]}
    raised = {**both, "method.x": (2, ["base.py"])}
    assert find_unsaid(raised, hashes, golden) == {"method.y": ["base.py"]}
