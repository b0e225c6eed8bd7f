"""Reading and writing an adapter's weights file; names and shapes are checked before anything is loaded."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_registry.adapters.verification import read_tensor_entries
from lorry_registry.errors import AdapterRejectedError, StoreError
from lorry_registry.files.atomic_write import whole_file
from lorry_registry.manifest import WEIGHTS_NAME

if TYPE_CHECKING:
    import torch

_SHOWN = 3


def save_tensors(tensors: "Mapping[str, torch.Tensor]", folder: Path) -> None:
    """Write contiguous copies of the tensors in the order of their names: equal adapters have equal bytes.

    Raises:
        StoreError: The file cannot be written, as on a full disk.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ordered = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    path = folder / WEIGHTS_NAME
    try:
        with whole_file(path) as partial:
            save_file(ordered, partial, metadata={"format": "pt"})
    except SafetensorError as error:
        # The library reports a full disk by an error of its own, which is no OSError.
        raise StoreError(
            f"cannot be written: {str(error).rpartition('error: ')[2]}",
            where=str(path),
            todo="check that the disk has space and that this user may write there, and run again",
        ) from error


def copy_tensors(tensors: "Mapping[str, torch.Tensor]", targets: "Mapping[str, torch.Tensor]") -> None:
    """Copy tensors into those of the same names."""
    import torch

    with torch.no_grad():
        for name, tensor in tensors.items():
            targets[name].copy_(tensor)


def load_tensors(
    folder: Path,
    expected: "Mapping[str, torch.Tensor]",
    newly_initialized: Iterable[str],
    *,
    may_lack: bool = False,
) -> "dict[str, torch.Tensor]":
    """Read a weights file whose tensors must have the expected names and shapes, and be finite.

    Args:
        folder: An adapter folder.
        expected: The tensors that would be saved of the model that the adapter is put on.
        newly_initialized: Ends of the names that the file must contain in any case, because the base's values
            are random there.
        may_lack: Whether the file may lack some of the other expected tensors.

    Raises:
        AdapterRejectedError: A tensor is missing, unknown, of another shape, or holds NaN or infinity.
    """
    from safetensors.torch import load_file

    path = folder / WEIGHTS_NAME
    entries = read_tensor_entries(path)
    problems = [
        *(() if may_lack else (f"{name} is missing" for name in sorted(expected.keys() - entries.keys()))),
        *(
            f"{bare} is missing, and the base does not hold it"
            for bare in sorted(newly_initialized)
            if not any(f".{name}".endswith(f".{bare}") for name in entries)
        ),
        *(
            f"{name} is not part of this method on this base"
            for name in sorted(entries.keys() - expected.keys())
        ),
        *(
            f"{name} has shape {list(entries[name].shape)}, the base needs {list(expected[name].shape)}"
            for name in sorted(entries.keys() & expected.keys())
            if entries[name].shape != tuple(expected[name].shape)
        ),
    ]
    _refuse(path, problems, "it was made for another base or with other options")
    tensors = load_file(path)
    _refuse(
        path,
        [f"{name} holds NaN or infinity" for name, tensor in tensors.items() if not tensor.isfinite().all()],
        "its training diverged; train again with a lower learning rate",
    )
    return tensors


def _refuse(path: Path, problems: list[str], todo: str) -> None:
    if not problems:
        return
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise AdapterRejectedError("; ".join(problems[:_SHOWN]) + more, where=str(path), todo=todo)
