#!/usr/bin/env bash
# Builds the images of infra/images/Containerfile from this checkout: make images.
#
#   build.sh [TARGET]...           slim, train, serve; default: all
#
# Environment, all optional:
#   ENGINE       podman, buildah or docker; default: the first of them that is here
#   TORCH        cpu (default) or cuda
#   DEMO         yes: the base model of the demo is in the images; default: no
#   REPOSITORY   what names begin with, such as registry.example.org/team; default: localhost
#   TAG          default: latest
#   BASE_IMAGE   any with Python 3.11 and pip; default: the one of infra/ci/make-base-image.sh when there is one, else
#                the Containerfile's
#
# pip's settings on this machine hold in the build as well, and leave no trace in the images. The lists of what is in
# them (CycloneDX) are laid into build/images/. Run again it builds only the layers whose content changed.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
targets=("$@")
((${#targets[@]})) || targets=(slim train serve)
declare -A names=([slim]=lorry-slim [train]=lorry-python [serve]=lorry-serve)
for target in "${targets[@]}"; do
    [[ -v names[$target] ]] || { echo "build.sh: there is no target $target; there are slim, train and serve" >&2; exit 2; }
done

engine=${ENGINE:-}
if [[ -z $engine ]]; then
    for engine in podman buildah docker none; do
        if command -v "$engine" >/dev/null; then break; fi
    done
fi
if ! command -v "$engine" >/dev/null; then
    echo "build.sh: none of podman, buildah and docker is installed: on Debian, apt-get install podman runc" >&2
    exit 1
fi
runtime=()
if [[ $engine == podman ]]; then
    # shellcheck source=infra/ci/podman-env.sh
    source "$checkout/infra/ci/podman-env.sh"
fi
if [[ $engine == buildah ]] && command -v runc >/dev/null; then
    export BUILDAH_RUNTIME=runc # as infra/ci/podman-env.sh has it for podman
fi
python=${PYTHON:-$checkout/.venv/bin/python}
[[ -x $python ]] || python=$(command -v python3)

has_image() {
    if [[ $engine == buildah ]]; then buildah inspect --type image "$1"; else "$engine" image inspect "$1"; fi
} >/dev/null 2>&1

print_size() {
    if [[ $engine == buildah ]]; then
        buildah images --format '{{.Size}}' "$1"
    else
        "$engine" image inspect --format '{{.Size}}' "$1" | numfmt --to=iec-i --suffix=B
    fi
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Pip's options on this machine, by file or environment, are those of pip in the build. The files it
# refers to are mounted, so that nothing of them stays in an image or its history.
"$python" - "$work" "${TORCH:-cpu}" >"$work/volumes" <<'PYTHON'
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

if sys.argv[2] == "cuda":
    # pip would take a wheel for CPUs for the newer version, and refuse it for its hash.
    places = [place for place in kept.pop("find-links", "").split() if not any(pathlib.Path(place).glob("torch-*+cpu*"))]
    kept |= {"find-links": " ".join(places)} if places else {}
for number, place in enumerate(kept.get("find-links", "").split()):
    if pathlib.Path(place).is_dir():
        print(f"{place}:/run/links{number}:ro")
        kept["find-links"] = kept["find-links"].replace(place, f"/run/links{number}")
if pathlib.Path(settings.get("cert", "")).is_file():
    shutil.copy(settings["cert"], work / "ca.pem")
    kept["cert"] = "/run/pip/ca.pem"

parser = configparser.RawConfigParser()
parser["global"] = {option: value.replace("\n", "\n  ") for option, value in kept.items()}
with (work / "pip.conf").open("w") as file:
    parser.write(file)
PYTHON
mapfile -t volumes <"$work/volumes"
[[ -f $work/ca.pem ]] && volumes+=("$work:/run/pip:ro")

base=${BASE_IMAGE:-}
if [[ -z $base ]] && has_image localhost/lorry-base:latest; then
    base=localhost/lorry-base:latest
fi
revision=$(git -C "$checkout" describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)
# Of the commit and not of the build: the same source makes the same image.
created=$(TZ=UTC git -C "$checkout" log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null || true)
version=$("$python" -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["project"]["version"])' \
    "$checkout/pyproject.toml")
options=(
    --file "$checkout/infra/images/Containerfile"
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision"
    --build-arg "TORCH=${TORCH:-cpu}" --build-arg "DEMO=${DEMO:-no}"
    --build-arg "TOOLS=$(cat "$checkout"/infra/images/{install.sh,prune.py,compile_used.py} | sha256sum | cut -c1-16)"
    --secret "id=pip.conf,src=$work/pip.conf"
    # A proxy is often to be had only in the host's network.
    --network=host
)
[[ -n $created ]] && options+=(--build-arg "CREATED=$created")
[[ -n $base ]] && options+=(--build-arg "BASE_IMAGE=$base")
if [[ $engine == docker ]]; then
    if ((${#volumes[@]})); then
        echo "build.sh: docker cannot mount what pip's settings name here, so it goes without: ${volumes[*]%%:*}" >&2
    fi
    export DOCKER_BUILDKIT=1
else
    # Limits that no machine's own fall short of, since runc may not raise them.
    options+=(--layers --pull=missing --ulimit nofile=1024:1024 --ulimit nproc=4096:4096)
    options+=("${volumes[@]/#/--volume=}")
fi

build() {
    "$engine" "${runtime[@]}" build "${options[@]}" "$@" "$checkout"
}

for target in "${targets[@]}"; do
    name=${REPOSITORY:-localhost}/${names[$target]}:${TAG:-latest}
    before=$("$engine" images --quiet --no-trunc "$name" 2>/dev/null || true)
    build --target "$target" --tag "$name"
    after=$("$engine" images --quiet --no-trunc "$name")
    if [[ -n $before && $before != "$after" ]]; then
        "$engine" rmi "$before" >/dev/null 2>&1 || true # nothing else names it; a container may still run it
    fi
    build --target "$target-sbom" --output "$checkout/build/images" >/dev/null
done
for target in "${targets[@]}"; do
    name=${REPOSITORY:-localhost}/${names[$target]}:${TAG:-latest}
    echo "$name: $(print_size "$name"), what is in it: build/images/$target.cdx.json"
done
