"""Loading a base under a head, for any task type."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.models.quantization import let_peft_use_bitsandbytes
from lorry_registry.errors import BaseModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_pretrained(
    model_class: Any, folder: Path, *, may_miss: bool, **options: Any
) -> "tuple[PreTrainedModel, frozenset[str]]":
    """Load one of transformers' automatic classes from a folder of safetensors, in fp32.

    That is so in any format of the stored base: an update of a ten-thousandth would be rounded away in
    half precision, and outputs would differ from one device to the next.

    Args:
        model_class: Its name, or what loads as such a class does.
        folder: The base.
        may_miss: Whether the base's weights may lack parameters, as they do of a task's own head.
        options: Fields of the base's configuration to change, and options of loading.

    Returns:
        The model, and the names of the parameters that the weights do not hold: they are random.

    Raises:
        BaseModelError: The base is damaged, or its architecture has no such head.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    loader: Any = getattr(transformers, model_class) if isinstance(model_class, str) else model_class
    try:
        with _without_load_report():
            model, loading = loader.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        # Cut short, of another size than its configuration says, or of an architecture without such a head.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if "ignore_mismatched_sizes" in reason:
            reason = "its weights have other sizes than its config.json says"
        raise BaseModelError(
            f"cannot be loaded: {reason}",
            where=str(folder),
            todo="restore the base, or name one whose configuration and weights belong together",
        ) from error
    if getattr(model, "is_quantized", False):
        let_peft_use_bitsandbytes()
    missing: Sequence[str] = sorted(loading["missing_keys"])
    if missing and not may_miss:
        raise BaseModelError(
            f"its weights lack {len(missing)} parameters of {type(model).__name__}, among them {missing[0]}",
            where=str(folder),
            todo="name a base that was trained for this task type, with its output layer",
        )
    return model, frozenset(missing)


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Keep transformers from advising to train what is missing: it comes from the adapter, or is refused.

    Otherwise a user who loads an adapter with plain MLflow would read that its head is random.
    """
    from transformers.utils import logging

    # Its functions are untyped.
    chatter: Any = logging
    verbosity, shows_progress = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        chatter.set_verbosity(verbosity)
        if shows_progress:
            chatter.enable_progress_bar()
