#!/usr/bin/env bash
# Build the image where that is possible without a registry: on a Debian root file system made here. Says why not, else.
#
#   scripts/build_image.sh [TAG]
#   BASE_IMAGE=NAME scripts/build_image.sh    build on an image that buildah already has or can pull
#
# Afterwards the image's operator runs once against the harness's control plane (scripts/try_image.py).
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' operator/wattzoo/__init__.py)
tag=${1:-localhost/wattzoo:$version}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/wattzoo/image
authorities=/etc/ssl/certs/ca-certificates.crt

skip() { printf 'image: skipped: %s\n' "$*"; exit 0; }

[ "$(id -u)" = 0 ] || skip "building an image needs root here"
if ! command -v buildah >/dev/null && command -v apt-get >/dev/null; then
  echo "image: installing buildah"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y buildah; } >/dev/null 2>&1 || true
fi
command -v buildah >/dev/null || skip "buildah is not installed and could not be"

base=${BASE_IMAGE:-}
if [ -z "$base" ]; then
  suite=$(. /etc/os-release && [ "${ID:-}" = debian ] && printf '%s' "${VERSION_CODENAME:-}") || true
  [ -n "$suite" ] || skip "the base is made from Debian packages and this is no Debian; set BASE_IMAGE"
  if ! command -v mmdebstrap >/dev/null; then
    echo "image: installing mmdebstrap"
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y mmdebstrap >/dev/null 2>&1 || skip "mmdebstrap is not installed and could not be"
  fi
  base=localhost/wattzoo-base:$suite
  if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    echo "image: making a Debian $suite root file system (a minute)"
    mkdir -p "$cache"
    mmdebstrap --quiet --variant=minbase --include=python3-minimal,python3-venv,ca-certificates \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      "$suite" "$cache/root.tar" || skip "the Debian root file system could not be made"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$cache/root.tar" / >/dev/null
    buildah commit --quiet --rm "$container" "$base" >/dev/null
    rm -f "$cache/root.tar"
  fi
fi

echo "image: building $tag on $base (minutes on a first run)"
trust=()
# A proxy that inspects traffic signs with an authority that only this machine knows.
[ -f "$authorities" ] && trust=(--volume "$authorities:$authorities:ro" --build-arg "PIP_CERT=$authorities")
buildah build --quiet --layers --isolation chroot --network host "${trust[@]}" --build-arg "BASE_IMAGE=$base" --tag "$tag" . >/dev/null
echo "image: built $tag, $(buildah images --format '{{.Size}}' "$tag")"
exec "${PYTHON:-.venv/bin/python}" scripts/try_image.py "$tag"
