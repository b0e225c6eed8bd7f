#!/usr/bin/env bash
# Pushes the images that build.sh has built, and prints their names by digest, which is how a cluster should name them.
#
# Environment: REPOSITORY, TAG, ENGINE as build.sh takes them.
set -euo pipefail
repository=${REPOSITORY:?the name that the images begin with, such as registry.example.org/team}
tag=${TAG:-latest}
engine=${ENGINE:-podman}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in lorry-slim lorry-python lorry-serve; do
    image=$repository/$name
    if [[ $engine == docker ]]; then
        docker push --quiet "$image:$tag" >&2
        docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image:$tag" | grep -F "$image@" | head -1
    else
        "$engine" push --digestfile "$work/digest" "$image:$tag" >&2
        echo "$image@$(cat "$work/digest")"
    fi
done
