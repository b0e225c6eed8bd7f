# shellcheck shell=bash
# Sourced by the scripts here: finds the repository and sets what podman needs, for this process alone.

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034  # for the scripts that source this
repository=$(cd "$scripts/../.." && pwd)

if ! command -v podman >/dev/null; then
    echo "podman is not installed: on Debian, apt-get install podman runc" >&2
    exit 1
fi
if command -v runc >/dev/null; then
    export CONTAINERS_CONF_OVERRIDE="$scripts/containers.conf"
fi
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
