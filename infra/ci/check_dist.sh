#!/usr/bin/env bash
# Installs the wheel and the sdist of dist/ into clean environments, away from the checkout, and uses them.
#
#   check_dist.sh             the registry alone, from the wheel, and the same files from the sdist
#   FULL=yes check_dist.sh    with training too: a first task from a table, trained and used (fetches some GiB)
#
# Environment: PYTHON (default: python3).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python3}
shopt -s nullglob
wheels=("$root"/dist/*.whl)
sdists=("$root"/dist/*.tar.gz)
if ((${#wheels[@]} != 1 || ${#sdists[@]} != 1)); then
    echo "check_dist.sh: dist/ must hold one wheel and one sdist: make dist" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Nothing of this checkout and of this user's settings is to be seen from there.
cd "$work"
unset PYTHONPATH LORRY_HOME LORRY_STORE MLFLOW_TRACKING_URI
install() {
    "$python" -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"
}
list_files() { "$python" -m zipfile --list "$1" | awk 'NR > 1 {print $1}' | grep -v '\.dist-info/RECORD$' | sort; }

echo "the wheel, alone"
install registry "${wheels[0]}"
registry/bin/lorry --version
registry/bin/lorry tasks | head -1
registry/bin/python -c 'import lorry_registry, sys; sys.exit("torch" in sys.modules)'

echo "the wheel that the sdist makes"
registry/bin/python -m pip wheel --quiet --no-deps --wheel-dir again "${sdists[0]}"
diff <(list_files "${wheels[0]}") <(list_files again/*.whl)

if [[ ${FULL:-} == yes ]]; then
    echo "the sdist, with training"
    install full "${sdists[0]}[train,pipelines]"
    full/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
        -r "$root/infra/demo/requirements.txt"
    full/bin/python - >reviews.csv <<'PYTHON'
import itertools

words = {"good": ("great", "lovely", "superb"), "bad": ("awful", "dull", "broken")}
things = ("film", "book", "phone", "chair", "meal", "hotel", "song", "game", "train", "coat")
print("text,label")
for label, thing, first, second in itertools.product(words, things, range(3), range(3)):
    print(f"The {thing} number {first} is {words[label][second]}.,{label}")
PYTHON
    full/bin/lorry init reviews.csv
    full/bin/lorry run reviews.yaml
    full/bin/lorry report reviews --html report.html
    full/bin/lorry predict reviews "A superb chair."
fi
echo "dist/ installs and runs"
