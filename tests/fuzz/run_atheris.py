"""Let atheris look for inputs that take the registry's readers where none has been, guided by coverage.

    pip install 'lorry[fuzz]'
    python tests/fuzz/run_atheris.py manifest -max_total_time=120     # and other options of libFuzzer
    python tests/fuzz/run_atheris.py task CORPUS_FOLDER -max_total_time=600

The first argument is the name of a target of the registry's (tests/fuzz/targets.py). What is found stops the
run and is written to a file crash-..., which is run again by naming it.
"""

import random
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

# Coverage is measured where the modules were instrumented while they were imported.
with atheris.instrument_imports(include=["lorry_registry"]):
    from fuzz.targets import check_answer, list_registry_targets

_MIB = 512


def main() -> None:
    """Run one target until the time is over or something is found."""
    targets = list_registry_targets()
    if len(sys.argv) < 2 or sys.argv[1] not in targets:
        raise SystemExit(f"name one of: {', '.join(targets)}")
    target = targets[sys.argv.pop(1)]
    root = Path(tempfile.mkdtemp(prefix="lorry-atheris-"))

    def run(content: bytes) -> None:
        folder = root / "inside"
        folder.mkdir()
        try:
            check_answer(target, content, folder)
            left = {entry.name for entry in root.iterdir()}
            assert left == {"inside", "corpus"}, "it left a file outside of its folder"
        finally:
            shutil.rmtree(folder)

    def mutate(content: bytes, limit: int, seed: int) -> bytes:
        chance = random.Random(seed)  # noqa: S311 -- repeatable, keeps no secret
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(content, limit))
        try:
            return chance.choice(target.mutations)(content, chance)[:limit]
        except Exception:  # noqa: BLE001 -- a mutation of documents was given none: it begins with a valid one
            return target.make_input(seed)[:limit]

    corpus = root / "corpus"
    corpus.mkdir()
    for number, content in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(content)
    # libFuzzer writes what it finds into the first folder, and reads the others.
    given = [*sys.argv, str(corpus), "-timeout=30", f"-rss_limit_mb={4 * _MIB}", "-max_len=20000"]
    atheris.Setup(given, run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
