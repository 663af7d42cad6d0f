#!/usr/bin/env bash
# Make a virtual environment with WattZoo and everything that developing, testing and the demo need, pinned by hash.
set -euo pipefail
venv=${1:-.venv}
python=${PYTHON:-python3}

fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "no '$python' on the PATH: install Python 3.11 or newer, or run 'make install PYTHON=/path/to/python3'"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" --version) is too old: WattZoo needs Python 3.11 or newer (make install PYTHON=...)"
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "install: adding the system package python3-venv"
    apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -q -y python3-venv >/dev/null
  else
    fail "$python cannot make virtual environments: install the system package python3-venv"
  fi
fi
if [ ! -x "$venv/bin/python" ]; then
  echo "install: making $venv with $("$python" --version)"
  "$python" -m venv "$venv"
fi
echo "install: installing the pinned dependencies of requirements/dev.txt (minutes on a first run)"
"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
touch "$venv/.installed"
echo "install: done, $("$venv/bin/python" --version) in $venv"
