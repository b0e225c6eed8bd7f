"""How a resolved adapter's version and base are written, in every card that shows them."""

from lorry_registry.manifest import Manifest
from lorry_registry.registry import Resolution


def format_version(resolution: Resolution) -> str:
    """Return the version, and whether it is the champion."""
    return (
        f"v{resolution.version} (champion)"
        if resolution.promoted_at
        else f"v{resolution.version} (not the champion)"
    )


def format_base(manifest: Manifest) -> str:
    """Return the base's address, with its revision if it has one."""
    revision = f" at {manifest.base.revision}" if manifest.base.revision else ""
    return f"{manifest.base.model}{revision}"
