"""mkdocs' hooks: diagrams are drawn by the site's own copy of Mermaid, and only pages that have one load it.

The theme would load it from another host, which then knows the addresses of readers.
"""

import hashlib
import importlib.metadata
from typing import Any

from mkdocs.exceptions import Abort
from mkdocs.structure.files import File, Files

# The package that carries mermaid.min.js 11.16.0 as npm has it; of the package, nothing else is used.
_PACKAGE = "mermaidx"
_FILE = "mermaidx/assets/mermaid.js"
_SHA256 = "74d7c46dabca328c2294733910a8aa1ed0c37451776e8d5295da38a2b758fb9b"
_PLACE = "assets/javascripts/mermaid.min.js"


def on_files(files: Files, config: Any) -> Files:
    """Add Mermaid to the site's files.

    Raises:
        Abort: It is not installed, or is not the expected file.
    """
    files.append(File.generated(config, _PLACE, content=_read_mermaid()))
    return files


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Load Mermaid where there is a diagram; the theme then takes the one that is there."""
    if 'class="mermaid"' not in output:
        return output
    up = "../" * page.url.count("/")
    return output.replace("</head>", f'<script defer src="{up}{_PLACE}"></script></head>', 1)


def _read_mermaid() -> bytes:
    install = "python -m pip install --no-deps --require-hashes -r infra/docs/requirements.txt"
    try:
        path = importlib.metadata.distribution(_PACKAGE).locate_file(_FILE)
    except importlib.metadata.PackageNotFoundError as error:
        raise Abort(f"Mermaid is not installed: {install}") from error
    content: bytes = path.read_bytes()  # type: ignore[attr-defined]
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise Abort(f"{path} is not Mermaid as it is expected: {install}")
    return content
