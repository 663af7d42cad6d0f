#!/usr/bin/env bash
# The cluster harness needs a few system programs: name those that are missing; as root on Debian, install them.
set -euo pipefail
declare -A package=([unshare]=util-linux [nsenter]=util-linux [mount]=mount [ip]=iproute2 [ps]=procps [git]=git)
missing=()
for program in "${!package[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
if [ "${#missing[@]}" -gt 0 ]; then
  names=$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "system: installing $names"
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y $names >/dev/null
  else
    echo "system: these system packages are missing and need root to install: $names" >&2
    exit 1
  fi
fi
