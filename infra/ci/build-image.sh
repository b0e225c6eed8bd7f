#!/usr/bin/env bash
# Builds the image of infra/images/Containerfile from this checkout, with this machine's pip settings.
#
#   build-image.sh [NAME]          default: localhost/lorry-python:latest
#
# Environment: BASE_IMAGE (default: the one of make-base-image.sh when there is one, else the Containerfile's),
# LORRY_CONSTRAINTS (a file of pinned versions; default: what .venv holds, when there is one, so that the
# image runs what was tested). Run again it rebuilds only the layers whose content changed.
set -euo pipefail
# shellcheck source=infra/ci/podman-env.sh
source "$(dirname "${BASH_SOURCE[0]}")/podman-env.sh"

name=${1:-localhost/lorry-python:latest}
python=${PYTHON:-$repository/.venv/bin/python}
[[ -x $python ]] || python=$(command -v python3)
base=${BASE_IMAGE:-}
if [[ -z $base ]] && podman image exists localhost/lorry-base:latest; then
    base=localhost/lorry-base:latest
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [[ -n ${LORRY_CONSTRAINTS:-} ]]; then
    cp "$LORRY_CONSTRAINTS" "$work/constraints.txt"
elif [[ -x $repository/.venv/bin/python ]]; then
    # Without what came from a folder or an address: such a line is no version.
    "$repository/.venv/bin/python" -m pip freeze --exclude-editable | grep '==' >"$work/constraints.txt" || true
else
    touch "$work/constraints.txt"
fi

# What pip on this machine is told, by file or environment, is what pip in the build is told. The files it
# refers to are mounted, so that nothing of them stays in the image or its history.
"$python" - "$work" >"$work/volumes" <<'PYTHON'
import ast, configparser, pathlib, shutil, subprocess, sys

work = pathlib.Path(sys.argv[1])
listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
settings: dict[str, str] = {}
# Least to most specific, as pip reads them.
ranks = {"global": 0, "install": 1, ":env:": 2}
rows = [line.partition("=") for line in listed.stdout.splitlines()]
for rank in range(3):
    for key, _, value in rows:
        section, _, option = key.rpartition(".")
        if ranks.get(section) == rank:
            settings[option] = ast.literal_eval(value)
wanted = ("index-url", "extra-index-url", "find-links", "trusted-host", "proxy", "timeout", "default-timeout",
          "retries", "prefer-binary")
kept = {option: settings[option] for option in wanted if option in settings}

for number, place in enumerate(kept.get("find-links", "").split()):
    if pathlib.Path(place).is_dir():
        print(f"{place}:/run/links{number}:ro")
        kept["find-links"] = kept["find-links"].replace(place, f"/run/links{number}")
if pathlib.Path(settings.get("cert", "")).is_file():
    shutil.copy(settings["cert"], work / "ca.pem")
    kept["cert"] = "/run/pip/ca.pem"
with (work / "constraints.txt").open("a") as constraints:
    for place in settings.get("constraint", "").split():
        constraints.write(pathlib.Path(place).read_text())
kept["constraint"] = "/run/pip/constraints.txt"

parser = configparser.RawConfigParser()
parser["global"] = {option: value.replace("\n", "\n  ") for option, value in kept.items()}
with (work / "pip.conf").open("w") as file:
    parser.write(file)
PYTHON
mapfile -t volumes <"$work/volumes"
volumes+=("$work:/run/pip:ro")

revision=$(git -C "$repository" describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)
version=$("$python" -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["project"]["version"])' \
    "$repository/pyproject.toml")
before=$(podman image inspect --format '{{.Id}}' "$name" 2>/dev/null || true)
# The host's network, since a proxy is often to be had only there; limits that no machine's own fall short of,
# since runc may not raise them.
podman build --file "$repository/infra/images/Containerfile" --tag "$name" \
    ${base:+--build-arg "BASE_IMAGE=$base"} \
    --build-arg "LOCK=$(sha256sum <"$work/constraints.txt" | cut -d' ' -f1)" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
    --secret "id=pip.conf,src=$work/pip.conf" "${volumes[@]/#/--volume=}" \
    --network=host --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
    --pull=missing --layers "$repository"
after=$(podman image inspect --format '{{.Id}}' "$name")
if [[ -n $before && $before != "$after" ]]; then
    podman rmi "$before" >/dev/null 2>&1 || true # nothing else names it; a container may still run it
fi
echo "$name: $(podman image inspect --format '{{.Size}}' "$name" | numfmt --to=iec)"
