"""Files that appear whole, whatever happens to their writer, and no writer that goes another way."""

import ast
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lorry_registry.files.atomic_write import is_partial, whole_file, write_whole, write_whole_text

ROOT = Path(__file__).parents[4]
PACKAGES = ("registry/lorry_registry", "components/lorry_components", "pipelines/lorry_pipelines")

# What opens a file for writing in another way than through atomic_write, and why it may.
ALLOWED = {
    "registry/lorry_registry/mlflow/artifacts.py": "a file of its own in a scratch folder, to be uploaded",
    "registry/lorry_registry/files/file_locks.py": "a lock's file is never read for its content alone",
    "registry/lorry_registry/stores/local_store.py": "scratch files, flushed and then linked or renamed",
    "components/lorry_components/data/predicted_table.py": "row by row, to the partial file of whole_file",
    "components/lorry_components/data/sources/s3.py": "downloads into a scratch folder of its own",
    "components/lorry_components/export/hub_export.py": "a folder that is renamed when it is whole",
    "components/lorry_components/export/merging.py": "a folder that is renamed when it is whole",
    "components/lorry_components/studies/trial_run.py": "appends lines to a history",
    "components/lorry_components/training/kernels/activation_cache.py": "memory on disk, in a scratch folder",
    "components/lorry_components/training/probe/feature_cache.py": "memory on disk, as a partial file",
    "components/lorry_components/training/checkpoints/checkpoint_files.py": (
        "a checkpoint counts when its last file is there"
    ),
    "components/lorry_components/task_types/diffusion/image_generation.py": (
        "takes a free name, which an exclusive open alone does"
    ),
    "pipelines/lorry_pipelines/local/launch.py": "a log that a process writes while it is read",
    "pipelines/lorry_pipelines/studies/trial_processes.py": "a log that a process writes while it is read",
}

_WRITERS = frozenset({"write_text", "write_bytes", "save_file", "save_pretrained"})

_WRITE_HALF = """
import sys
import time
from pathlib import Path
from lorry_registry.files.atomic_write import whole_file

with whole_file(Path(sys.argv[1])) as partial:
    with partial.open("wb") as stream:
        stream.write(b"half")
        stream.flush()
        print("half", flush=True)
        time.sleep(600)
"""

_WRITE_OFTEN = """
import sys
from pathlib import Path
from lorry_registry.files.atomic_write import write_whole

content = sys.argv[2].encode() * 100_000
for _ in range(200):
    write_whole(Path(sys.argv[1]), content)
"""


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"one")
    assert path.read_bytes() == b"one"
    write_whole_text(path, "zwei: ä\r\n")
    assert path.read_bytes() == "zwei: ä\r\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_whole(tmp_path / "whole", b"")
    (tmp_path / "usual").touch()
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("before", [None, b"before"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_a_writer_that_fails_half_way_leaves_what_was_there(
    tmp_path: Path, before: bytes | None, error: BaseException
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(type(error)), whole_file(path) as partial:
        partial.write_bytes(b"half")
        raise error
    assert [found.read_bytes() for found in tmp_path.iterdir()] == ([before] if before is not None else [])


def test_a_file_in_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "file", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("before", [None, b"before"])
def test_a_writer_that_is_killed_half_way_leaves_what_was_there(
    tmp_path: Path, start_script: Callable[..., "subprocess.Popen[str]"], before: bytes | None
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    writer = start_script(_WRITE_HALF, path)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert (path.read_bytes() if path.exists() else None) == before
    (leftover,) = (found for found in tmp_path.iterdir() if found != path)
    assert is_partial(leftover.name)
    write_whole(path, b"after")
    assert path.read_bytes() == b"after"


def test_a_reader_never_sees_a_mixture(
    tmp_path: Path, start_script: Callable[..., "subprocess.Popen[str]"]
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"a" * 100_000)
    writers = [start_script(_WRITE_OFTEN, path, letter) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        assert content == content[:1] * 100_000
        seen.add(content[:1])
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen <= {b"a", b"b"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["file", "draft.partial", ".file.partial", ".file.0123.partial", ".hidden"])
def test_other_files_are_not_taken_for_leftovers(name: str) -> None:
    assert not is_partial(name)


def test_no_module_writes_a_file_in_another_way() -> None:
    writers = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            lines = list(_find_writes(ast.parse(path.read_text("utf-8"))))
            if lines:
                writers[path.relative_to(ROOT).as_posix()] = lines
    strangers = {name: lines for name, lines in writers.items() if name not in ALLOWED}
    assert not strangers, (
        f"write through lorry_registry.files.atomic_write, or say in ALLOWED why not: {strangers}"
    )
    assert writers.keys() == ALLOWED.keys(), "a module that is allowed to write does not"


def _find_writes(tree: ast.Module) -> Iterator[int]:
    """Yield the lines that open a file for writing, or let a library write one by its path."""
    wholes = {id(call) for node in ast.walk(tree) if isinstance(node, ast.With) for call in _list_inner(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or id(node) in wholes:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        # A figure is told its format where it is saved to a stream; a path has its own.
        into_path = name == "savefig" and all(keyword.arg != "format" for keyword in node.keywords)
        if name in _WRITERS or into_path or (name == "open" and _is_for_writing(node)):
            yield node.lineno


def _list_inner(node: ast.With) -> Iterator[ast.Call]:
    """Yield the calls below ``with whole_file(...)``."""
    opened = [item.context_expr for item in node.items]
    if any(isinstance(call, ast.Call) and getattr(call.func, "id", "") == "whole_file" for call in opened):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                yield inner


def _is_for_writing(call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [
        value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)
    ]
    return any(set(mode) <= set("rwxabt+") and set(mode) & set("wxa+") for mode in modes)
