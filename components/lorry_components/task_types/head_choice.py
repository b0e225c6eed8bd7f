"""The head of a task about whole texts: transformers' own, or Lorry's over a pooled vector."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.models.model_family import is_encoder_decoder, pools_last_token
from lorry_components.models.pooling import find_stated_pooling, read_pooling
from lorry_components.task_types.input_form import InputForm
from lorry_registry.errors import BaseModelError, Fault
from lorry_registry.manifest import Pooling

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FEW_ROWS = 200
"""Fewer training rows are few for a head that predicts numbers."""

_DROPOUTS = ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "cls_dropout")


def choose_pooling(form: InputForm, config: "PretrainedConfig", stated: Pooling | None) -> Pooling | None:
    """Return what the head reads of a base; None: it is transformers' own, and reads what that reads.

    Args:
        form: The task's form.
        config: The base's configuration.
        stated: How the base says that its states are pooled.
    """
    wanted = form.pooling
    if wanted == "stated-if-few":
        # They are many, or not counted yet.
        return None
    if wanted == "stated":
        return None if is_encoder_decoder(config) else stated
    if wanted == "auto":
        wanted = None if is_encoder_decoder(config) else stated
        if wanted is None and form.fits_head:
            wanted = find_family_pooling(config)
    is_usual = wanted == Pooling(place="last") and pools_last_token(config)
    # transformers' head is enough where it reads the same, and may begin at random.
    return None if is_usual and not form.fits_head and form.head_dropout is None else wanted


def find_family_pooling(config: "PretrainedConfig") -> Pooling:
    """Return the position that transformers' head for a base's family reads, without its further layers."""
    return Pooling(place="last" if pools_last_token(config) else "first")


def find_features_pooling(form: InputForm, config: "PretrainedConfig", folder: Path) -> Pooling | None:
    """Return what a linear model on a frozen base reads, no matter what the task's own head is.

    None: the base is an encoder with a decoder, for which there is no such model.

    Args:
        form: The task's form, settled or not.
        config: The base's configuration.
        folder: The base.
    """
    if is_encoder_decoder(config):
        return None
    if isinstance(form.pooling, Pooling):
        return form.pooling
    return find_stated_pooling(folder) or find_family_pooling(config)


def check_head_on_base(form: InputForm, config: "PretrainedConfig") -> Iterator[Fault]:
    """Say what of a task's head does not suit a base."""
    if is_encoder_decoder(config):
        if isinstance(form.pooling, Pooling):
            yield Fault(
                "head.pooling",
                f"a {config.model_type} has an encoder and a decoder, and its head reads the decoder's end",
                "leave it out",
            )
        if form.fits_head:
            yield Fault(
                "head.init",
                f"there is no linear probe on a {config.model_type}, which has an encoder and a decoder",
                "write random, and choose another method than probe",
            )
    # Whether the base says how it pools makes no difference here: a head of Lorry's own has a dropout.
    is_transformers = form.pooling in ("auto", None) and not form.fits_head
    if form.head_dropout is not None and is_transformers and not find_dropout_field(config):
        yield Fault(
            "head.dropout",
            f"transformers' head on a {config.model_type} has no dropout",
            "leave it out, or write head.pooling: last",
        )


def check_head_in_folder(form: InputForm, folder: Path) -> Iterator[Fault]:
    """Say why the head cannot read what a base says of itself, if it cannot."""
    if form.pooling != "auto":
        return
    try:
        read_pooling(folder)
    except BaseModelError as error:
        yield Fault("head.pooling", f"auto reads {error.where}, which {error.what}", error.todo)


def find_dropout_field(config: Any) -> str | None:
    """Return the field of a base's configuration for the dropout in transformers' head; None: it has none."""
    return next((name for name in _DROPOUTS if hasattr(config, name)), None)
