#!/usr/bin/env bash
# Makes a base image with a Python like this machine's own, without any container registry.
#
#   make-base-image.sh [NAME]      default: localhost/lorry-base:latest
#
# Debian comes from debootstrap, Python is copied from the running one into /usr/local, where the official
# python images have it. When the running Python is the system's, Debian's own is installed instead.
# Production builds have no need of this: they start from a published python image (see infra/images).
#
# Needs root. Environment: PYTHON (default: .venv's, else python3), DEBIAN_SUITE (default: this machine's),
# DEBIAN_MIRROR (default: debootstrap's). Does nothing when NAME is already made of the same parts.
set -euo pipefail
# shellcheck source=infra/ci/podman-env.sh
source "$(dirname "${BASH_SOURCE[0]}")/podman-env.sh"

name=${1:-localhost/lorry-base:latest}
python=${PYTHON:-$repository/.venv/bin/python}
[[ -x $python ]] || python=$(command -v python3)
# shellcheck source=/dev/null
suite=${DEBIAN_SUITE:-$(source /etc/os-release && echo "$VERSION_CODENAME")}
if ((EUID != 0)); then
    echo "make-base-image.sh: debootstrap needs root" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
packages=(ca-certificates)

# Python without what a container has no use for: installed packages, tests, a desktop's toolkits.
stage_python() {
    mkdir -p "$work/python/bin" "$work/python/lib"
    cp -a "$prefix/bin/python$version" "$work/python/bin/"
    ln -s "python$version" "$work/python/bin/python3"
    ln -s python3 "$work/python/bin/python"
    find "$prefix/lib" -maxdepth 1 -name "libpython$version.so*" -exec cp -a {} "$work/python/lib/" \;
    tar -C "$prefix/lib" -cf - \
        --exclude='site-packages/*' --exclude="python$version/config-*" --exclude="python$version/test" \
        --exclude=idlelib --exclude=tkinter --exclude=turtledemo --exclude=lib2to3 --exclude=tests \
        --exclude='lib-dynload/*_tkinter*' --exclude='lib-dynload/*_dbm*' --exclude='lib-dynload/*_gdbm*' \
        --exclude='lib-dynload/*_test*' --exclude='lib-dynload/nis.*' \
        "python$version" | tar -C "$work/python/lib" -xf -
}

# The Debian packages that own the libraries which the staged Python links to. Asking the files beats a
# list, which would go stale with the next Debian.
owners_of_libraries() {
    local library file owner
    ldd "$work/python/bin/python$version" "$work/python/lib/python$version"/lib-dynload/*.so |
        awk '/=> \// {print $3}' | sort -u | while read -r library; do
        [[ $library != "$prefix"/* ]] || continue
        file=$(realpath "$library")
        # /lib is a link to /usr/lib, and dpkg knows a file by the one or the other name.
        owner=$(dpkg-query --search "$file" 2>/dev/null || dpkg-query --search "${file#/usr}" 2>/dev/null) || {
            echo "make-base-image.sh: no Debian package has $file, which $python links to" >&2
            return 1
        }
        echo "${owner%%:*}"
    done | sort -u
}

if [[ $prefix == /usr ]]; then
    packages+=(python3 python3-pip)
else
    stage_python
    owners=$(owners_of_libraries) # not in a process substitution, whose failure no one would see
    mapfile -t -O "${#packages[@]}" packages <<<"$owners"
fi

parts=$({
    "$python" -VV
    echo "$suite" "${packages[@]}"
    cat "${BASH_SOURCE[0]}"
} | sha256sum | cut -d' ' -f1)
if [[ $(podman image inspect --format '{{index .Labels "lorry.base.parts"}}' "$name" 2>/dev/null) == "$parts" ]]; then
    echo "$name is up to date"
    exit 0
fi

system=$work/system
# The tree is thrown away if anything fails, so dpkg may skip its syncs: a third of the time.
mkdir -p "$system/etc/dpkg/dpkg.cfg.d"
echo force-unsafe-io >"$system/etc/dpkg/dpkg.cfg.d/unsafe-io"
included=$(
    IFS=,
    echo "${packages[*]}"
)
if ! debootstrap --variant=minbase --include="$included" "$suite" "$system" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} \
    >"$work/debootstrap.log" 2>&1; then
    tail -20 "$work/debootstrap.log" >&2
    exit 1
fi
rm "$system/etc/dpkg/dpkg.cfg.d/unsafe-io"

if [[ $prefix == /usr ]]; then
    ln -s /usr/bin/python3 "$system/usr/local/bin/python"
    # The image holds one application: pip may install into the system's Python.
    rm -f "$system"/usr/lib/python3*/EXTERNALLY-MANAGED
else
    cp -a "$work/python/." "$system/usr/local/"
    chown -R root:root "$system/usr/local"
    chroot "$system" ldconfig
    chroot "$system" python3 -m ensurepip --default-pip >/dev/null 2>&1
fi
# A library that was forgotten shows here and not in a step.
chroot "$system" python -c 'import ssl, sqlite3, ctypes, lzma, bz2, zlib, uuid, readline, pip'
inside=$(chroot "$system" python -V)

rm -rf "$system"/var/cache/apt/* "$system"/var/lib/apt/lists/* "$system"/var/log/* \
    "$system"/usr/share/{doc,man,info,locale}/* "$system/root/.cache"
tar -C "$system" --numeric-owner -cf - . | podman import --quiet \
    --change "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    --change "ENV LANG=C.UTF-8" \
    --change "CMD [\"python3\"]" \
    --change "LABEL lorry.base.parts=$parts" \
    - "$name" >/dev/null
echo "$name: $(podman image inspect --format '{{.Size}}' "$name" | numfmt --to=iec) with $inside"
