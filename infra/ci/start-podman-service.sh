#!/usr/bin/env bash
# Starts podman's Docker-compatible service in the background and waits until it answers.
#
#   start-podman-service.sh SOCKET      prints the process id, which is also in SOCKET.pid
#   export DOCKER_HOST=unix://SOCKET    for kfp's DockerRunner, the docker SDK and docker itself
#   kill "$(cat SOCKET.pid)"            ends it
#
# Its log is SOCKET.log. When a service already answers at SOCKET, its process id is printed and no other started.
set -euo pipefail
# shellcheck source=infra/ci/podman-env.sh
source "$(dirname "${BASH_SOURCE[0]}")/podman-env.sh"

socket=$(realpath -m "${1:?usage: start-podman-service.sh SOCKET}")

answers() {
    podman --remote --url "unix://$socket" version >/dev/null 2>&1
}

if [[ -S $socket && -f $socket.pid ]] && answers; then
    cat "$socket.pid"
    exit 0
fi

mkdir -p "$(dirname "$socket")"
rm -f "$socket"
setsid podman "${runtime[@]}" system service --time=0 "unix://$socket" >"$socket.log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$socket.pid"
for _ in {1..150}; do
    if answers; then
        echo "$pid"
        exit 0
    fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.2
done
echo "podman's service did not start; $socket.log says:" >&2
tail -20 "$socket.log" >&2
kill "$pid" 2>/dev/null || true
exit 1
