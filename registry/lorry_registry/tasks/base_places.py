"""The place of the bases that have a logical name, ``bases:NAME``: each machine sets its own.

A task, a manifest and a digest hold the name only. The edge of a process reads the place from its settings
and attaches it to the tasks that it loads.
"""

from dataclasses import dataclass, field
from pathlib import Path

from lorry_registry.stores.s3_client import S3Options


@dataclass(frozen=True, slots=True)
class BasePlace:
    """A place of base models.

    Attributes:
        address: A folder with one folder for each base, or ``s3://bucket/prefix``; empty: none is set.
        cache: Where bases from S3 are kept, each downloaded once.
        s3: Options of S3 beyond boto3's own settings.
    """

    address: str = ""
    cache: Path = Path()
    s3: S3Options = field(default_factory=S3Options)

    @property
    def is_remote(self) -> bool:
        """Whether bases are downloaded from it."""
        return "://" in self.address
