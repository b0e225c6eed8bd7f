import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.adapters.verification import (
    check_files,
    describe_file,
    read_tensor_entries,
    verify_adapter,
)
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import CONFIG_NAME, MANIFEST_NAME, WEIGHTS_NAME, Manifest

Change = Callable[[Path], None]


def _reseal(folder: Path) -> None:
    """Write a manifest that fits the files: what a forger would do."""
    manifest = Manifest.parse((folder / MANIFEST_NAME).read_bytes(), where="x")
    files = tuple(describe_file(folder / entry.name) for entry in manifest.files)
    (folder / MANIFEST_NAME).write_bytes(manifest.model_copy(update={"files": files}).serialize())


def _flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS_NAME).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS_NAME).write_bytes(content)


def _link_to_nothing(folder: Path) -> None:
    (folder / WEIGHTS_NAME).unlink()
    (folder / WEIGHTS_NAME).symlink_to("nowhere")


def _indent_manifest(folder: Path) -> None:
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    (folder / MANIFEST_NAME).write_text(json.dumps(document, indent=1), "utf-8")


def _hide_a_nan_in_the_recipe(folder: Path) -> None:
    text = (folder / MANIFEST_NAME).read_text("utf-8")
    (folder / MANIFEST_NAME).write_text(text.replace('"seed":0', '"seed":NaN'), "utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_flip_a_byte, "adapter_model.safetensors was changed"),
        (lambda folder: (folder / "README.md").write_text("longer than before", "utf-8"), "bytes instead of"),
        (lambda folder: (folder / "notes.txt").touch(), "notes.txt does not belong to it"),
        (lambda folder: (folder / ".hidden").touch(), ".hidden does not belong to it"),
        (lambda folder: (folder / "code").mkdir(), "code does not belong to it"),
        (lambda folder: (folder / "adapter_model.bin").touch(), "adapter_model.bin does not belong to it"),
        (lambda folder: (folder / WEIGHTS_NAME).unlink(), "adapter_model.safetensors is missing"),
        (lambda folder: (folder / MANIFEST_NAME).unlink(), "cannot be read: No such file"),
        (_link_to_nothing, "adapter_model.safetensors is not a plain file"),
        (_indent_manifest, "not in canonical form"),
        (_hide_a_nan_in_the_recipe, "not in canonical form"),
        (lambda folder: (folder / MANIFEST_NAME).write_bytes(b" " * (4 << 20) + b"{}"), "is larger than"),
    ],
)
def test_a_folder_that_was_tampered_with_is_refused(
    make_adapter: Callable[..., Any], change: Change, said: str
) -> None:
    folder = make_adapter().path
    change(folder)
    with pytest.raises(AdapterRejectedError) as caught:
        verify_adapter(folder)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "->" in str(caught.value)


def test_a_folder_that_nobody_touched_is_accepted(make_adapter: Callable[..., Any]) -> None:
    adapter = make_adapter()
    assert verify_adapter(adapter.path) == adapter.manifest
    assert verify_adapter(adapter.path, expected_id=adapter.adapter_id) == adapter.manifest


def test_another_adapter_than_the_one_asked_for_is_refused(make_adapter: Callable[..., Any]) -> None:
    with pytest.raises(AdapterRejectedError, match="its id is sha256:"):
        verify_adapter(make_adapter(seed=1).path, expected_id=make_adapter(seed=2).adapter_id)


def test_everything_that_is_wrong_is_told_at_once(make_adapter: Callable[..., Any]) -> None:
    folder = make_adapter().path
    _flip_a_byte(folder)
    (folder / "extra.py").touch()
    (folder / CONFIG_NAME).unlink()
    with pytest.raises(
        AdapterRejectedError, match=r"extra\.py .*; adapter_config.json is missing; .*was changed"
    ):
        verify_adapter(folder)


def test_named_files_may_lie_beside_the_adapters_own(make_adapter: Callable[..., Any]) -> None:
    adapter = make_adapter()
    (adapter.path / "MLmodel").touch()
    assert verify_adapter(adapter.path, beside=frozenset({"MLmodel"})) == adapter.manifest
    check_files(adapter.path, adapter.manifest)


def test_a_file_that_cannot_be_read_is_named(
    make_adapter: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter()

    def fail(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("lorry_registry.adapters.verification.digest_file", fail)
    with pytest.raises(AdapterRejectedError, match="cannot be read: Permission denied"):
        verify_adapter(adapter.path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"auto_mapping": {"base_model_class": "X", "parent_library": "evil"}},
            "auto_mapping would import code",
        ),
        ({"parent_library": "evil"}, "parent_library would import code"),
        ([], "not a JSON object"),
        ("{", "not JSON"),
        ("\udcff", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        ("x" * ((1 << 20) + 1), "is larger than"),
    ],
)
def test_a_config_that_names_code_is_refused_even_with_a_fitting_manifest(
    make_adapter: Callable[..., Any], config: Any, said: str
) -> None:
    folder = make_adapter().path
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / CONFIG_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    _reseal(folder)
    with pytest.raises(AdapterRejectedError, match=said):
        verify_adapter(folder)


def _write_weights(folder: Path, header: Any, body: bytes = b"", length: int | None = None) -> Path:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / WEIGHTS_NAME
    path.write_bytes(struct.pack("<Q", len(encoded) if length is None else length) + encoded + body)
    return path


def _entry(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@pytest.mark.parametrize(
    ("header", "body", "said"),
    [
        (b"not json", b"", "its header is not JSON"),
        (b"[" * 100_000, b"", "its header is not JSON"),
        (b"[]", b"", "malformed"),
        (b"{}", b"", "holds no tensor"),
        ({"__metadata__": {}}, b"", "holds no tensor"),
        ({"w": 3}, b"", "malformed"),
        (_entry(dtype="PICKLE"), bytes(8), "no adapter has numbers of type 'PICKLE'"),
        (_entry(dtype=["F32"]), bytes(8), "malformed"),
        (_entry(shape=[3]), bytes(8), r"shape \[3\] has 8 bytes"),
        (_entry(shape=[-2]), bytes(8), "not a whole number"),
        (_entry(shape=[True, 2]), bytes(8), "not a whole number"),
        (_entry(data_offsets=[0, 8, 9]), bytes(8), "malformed"),
        (_entry(data_offsets=[8, 16]), bytes(16), "do not follow one another"),
        (_entry(data_offsets=[0.0, 8.0]), bytes(8), "not a whole number"),
        (_entry() | {"v": _entry()["w"]}, bytes(8), "do not follow one another"),
        (_entry(), bytes(7), "take 8 bytes, the file has 7"),
        (_entry(), bytes(9), "take 8 bytes, the file has 9"),
    ],
)
def test_a_header_that_is_not_sane_is_refused(tmp_path: Path, header: Any, body: bytes, said: str) -> None:
    with pytest.raises(AdapterRejectedError, match=said) as caught:
        read_tensor_entries(_write_weights(tmp_path, header, body))
    assert WEIGHTS_NAME in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 3, 1 << 20, (1 << 20) + 1, 2**63, 2**64 - 1])
def test_a_header_of_impossible_length_is_refused_unread(tmp_path: Path, length: int) -> None:
    with pytest.raises(AdapterRejectedError, match="cannot be right"):
        read_tensor_entries(_write_weights(tmp_path, b"{}", length=length))


def test_a_giant_header_is_refused_although_the_file_is_long_enough(tmp_path: Path) -> None:
    path = _write_weights(tmp_path, b" " * ((1 << 20) + 1))
    with pytest.raises(AdapterRejectedError, match="a header of 1048577 bytes cannot be right"):
        read_tensor_entries(path)


def test_a_file_too_short_for_a_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_NAME).write_bytes(b"123")
    with pytest.raises(AdapterRejectedError, match="a header of 0 bytes"):
        read_tensor_entries(tmp_path / WEIGHTS_NAME)
    with pytest.raises(AdapterRejectedError, match="cannot be read"):
        read_tensor_entries(tmp_path / "missing")


def test_the_real_library_writes_what_we_read(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    library = pytest.importorskip("safetensors.numpy")
    tensors = {
        "b": numpy.zeros((2, 3), "float16"),
        "a": numpy.ones((), "int64"),
        "c": numpy.zeros((0, 4), "float32"),
    }
    library.save_file(tensors, tmp_path / WEIGHTS_NAME)
    entries = read_tensor_entries(tmp_path / WEIGHTS_NAME)
    assert {name: entry.shape for name, entry in entries.items()} == {"a": (), "b": (2, 3), "c": (0, 4)}
