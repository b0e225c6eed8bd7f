# shellcheck shell=bash
# Sourced by the scripts here: finds the repository and sets what podman needs, for this process alone.

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034  # for the scripts that source this
repository=$(cd "$scripts/../.." && pwd)

if ! command -v podman >/dev/null; then
    echo "podman is not installed: on Debian, apt-get install podman runc" >&2
    exit 1
fi
# For what starts containers. crun refuses hybrid cgroups (v1 controllers beside a v2 tree), which some CI machines
# still have; podman 4.3 reads no file of settings that is laid over the machine's own.
# shellcheck disable=SC2034
runtime=()
if command -v runc >/dev/null; then
    runtime=(--runtime "$(command -v runc)")
fi
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
