"""The layout of a stack's folder."""

import shlex
from dataclasses import dataclass
from pathlib import Path

DEFAULT_FOLDER = Path(".stack")


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder of a stack.

    Attributes:
        folder: The folder, absolute.
    """

    folder: Path

    @property
    def lock(self) -> Path:
        """Held while a command starts or stops the servers."""
        return self.folder / "lock"

    @property
    def options(self) -> Path:
        """What was chosen when the stack was started: ports, the way of artifacts, logins."""
        return self.folder / "options.json"

    @property
    def credentials(self) -> Path:
        """The passwords; for their owner's eyes."""
        return self.folder / "credentials.json"

    @property
    def processes(self) -> Path:
        """The processes that were started."""
        return self.folder / "processes.json"

    @property
    def variables(self) -> Path:
        """The variables for a shell, passwords included; for their owner's eyes."""
        return self.folder / "env"

    @property
    def seaweedfs(self) -> Path:
        """What is kept on S3."""
        return self.folder / "seaweedfs"

    @property
    def postgresql(self) -> Path:
        """The databases."""
        return self.folder / "postgresql"

    @property
    def mlflow(self) -> Path:
        """The working folder of MLflow, which keeps nothing of its own."""
        return self.folder / "mlflow"

    def locate_log(self, name: str) -> Path:
        """Return the log of a server."""
        return self.folder / f"{name}.log"

    def format_make(self, target: str) -> str:
        """Return the command that makes a target of the Makefile for this folder."""
        if self.folder == DEFAULT_FOLDER.absolute():
            return f"make {target}"
        return f"make {target} STACK={shlex.quote(shorten(self.folder))}"


def shorten(path: Path) -> str:
    """Return a path as it is written in the working folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
