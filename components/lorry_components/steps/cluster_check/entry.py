"""Looks, from inside a pod, at what the steps of a pipeline need, and tells it in the store.

Layout in the store: ``cluster_checks/<run>.json``. ``lorry doctor --cluster`` removes it.
"""

import os
from collections.abc import Callable, Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lorry_components.models.named_bases import list_names
from lorry_components.process_setup import conceal_secrets
from lorry_components.steps.runtime.step_context import choose_tracking_uri
from lorry_registry.errors import LorryError
from lorry_registry.files.atomic_write import write_whole
from lorry_registry.files.digests import canonical_json
from lorry_registry.mlflow.artifacts import try_artifacts
from lorry_registry.mlflow.connection import MlflowConnection
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.mlflow.network import BRIEF
from lorry_registry.settings import Settings
from lorry_registry.stores import open_store
from lorry_registry.text.scrubbing import scrub_text

_MOST_BASES = 20


class CheckAnswer(BaseModel):
    """What one look found.

    Attributes:
        subject: What was looked at.
        is_well: Whether it works.
        text: What was found.
        todo: What to do if it does not work.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    is_well: bool
    text: str
    todo: str = ""


class CheckReport(BaseModel):
    """What a pod reaches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: tuple[CheckAnswer, ...]


def locate_report(run: str) -> str:
    """Return the key of the report of a run."""
    return f"cluster_checks/{run}.json"


def main(*, run: str, store: str, tracking_uri: str) -> None:
    """Look, and keep what was found.

    Raises:
        StoreError: The store cannot be written, so that nothing can be kept: the log has the reason.
    """
    secrets = conceal_secrets(os.environ)
    settings = Settings.load(os.environ, Path.cwd())
    opened = open_store(store, settings.s3)
    opened.check_writable()
    answers = [
        CheckAnswer(subject="store", is_well=True, text=f"{opened.address}: read and write"),
        _look("MLflow", lambda: _look_at_mlflow(tracking_uri), secrets),
        _look("home", lambda: _look_at_home(settings), secrets),
        *([_look("bases", lambda: _look_at_bases(settings), secrets)] if settings.bases else []),
    ]
    report = CheckReport(answers=tuple(answers))
    opened.overwrite(locate_report(run), canonical_json(report.model_dump(mode="json")))


def _look(subject: str, look: Callable[[], str], secrets: Collection[str]) -> CheckAnswer:
    try:
        return CheckAnswer(subject=subject, is_well=True, text=look())
    except LorryError as error:
        text = f"{error.where}: {error.what}" if error.where else error.what
        return CheckAnswer(
            subject=subject,
            is_well=False,
            text=scrub_text(text, secrets),
            todo=scrub_text(error.todo, secrets),
        )
    except OSError as error:
        text = f"{error.filename or subject}: {error.strerror or error}"
        todo = "mount what is missing, or correct its permissions: steps run as the profile's user"
        return CheckAnswer(subject=subject, is_well=False, text=text, todo=todo)


def _look_at_mlflow(tracking_uri: str) -> str:
    address = choose_tracking_uri(tracking_uri, os.environ)
    MlflowIndex(address, limits=BRIEF).check_reachable()
    answer = try_artifacts(MlflowConnection(address, BRIEF))
    return "it answers" + (f", and artifacts are written and read in {answer.place}" if answer else "")


def _look_at_home(settings: Settings) -> str:
    settings.home.mkdir(parents=True, exist_ok=True)
    path = settings.home / "cluster-check"
    write_whole(path, b"written")
    path.unlink()
    return f"{settings.home} can be written"


def _look_at_bases(settings: Settings) -> str:
    names = sorted(list_names(settings.base_place))
    if not names:
        raise LorryError(
            "there is no base",
            where=settings.base_place.address,
            todo="fill it with lorry bases push, as docs/kubernetes.md says",
        )
    more = f" and {len(names) - _MOST_BASES} more" if len(names) > _MOST_BASES else ""
    return f"{settings.base_place.address}: {', '.join(names[:_MOST_BASES])}{more}"
