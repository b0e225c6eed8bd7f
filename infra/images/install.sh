#!/bin/sh
# Installs what lock files list, by their hashes, into the image's environment, and removes what no step needs.
# Runs inside a build (see Containerfile), with pip borrowed from /tools.
#
#   install.sh LOCK...
set -eu
for lock in "$@"; do
    set -- "$@" --requirement "$lock"
    shift
done
errors=$(mktemp)
PYTHONPATH=/tools PYTHONDONTWRITEBYTECODE=1 python3 -m pip install --quiet --disable-pip-version-check \
    --root-user-action=ignore --no-cache-dir --no-compile --no-deps --require-hashes --only-binary :all: "$@" \
    2>"$errors" || {
    cat "$errors" >&2
    # pip speaks of tampering where the index has the build of torch for CUDA alone.
    case $* in *torch-cpu.txt*)
        if grep -q 'torch==' "$errors"; then
            echo "install.sh: the package index gives another build of torch than the one for CPUs that is locked: set" \
                "PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS to where that one is, or build with TORCH=cuda" >&2
        fi ;;
    esac
    exit 1
}
cat "$errors" >&2
rm "$errors"
packages=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python3 /tools/prune.py "$packages"
# Some libraries write into the home what they find out when they are imported.
scratch=$(mktemp -d)
HOME=$scratch python3 /tools/compile_used.py
rm -rf "$scratch"
