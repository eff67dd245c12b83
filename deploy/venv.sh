#!/usr/bin/env bash
# Makes .venv what a lock file says: `run` for what Mailvane needs, `dev` for what working on it needs as well.
# Leaves the stamps .venv/.run and .venv/.dev, by which make knows. The versions and hashes are the lock's.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# Without a home to write to there is no cache, and nothing to warn of.
[ -w "${HOME:-/nowhere}" ] || export PIP_NO_CACHE_DIR=1
PYTHON=${PYTHON:-python3}
as_root=$([ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo yes || echo no)

case "${1:-}" in
  run) lock=requirements.lock ;;
  dev) lock=requirements-dev.lock ;;
  *) echo "usage: $0 run|dev" >&2; exit 2 ;;
esac

say() { printf '%s\n' "$*" >&2; }

if ! command -v "$PYTHON" >/dev/null; then
  say "There is no $PYTHON here. Mailvane needs Python 3.11 or newer; on Debian: apt install python3 python3-venv"
  exit 1
fi
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  say "$("$PYTHON" --version) is too old: Mailvane needs 3.11 or newer. Name another one: make PYTHON=python3.11 …"
  exit 1
fi

# Debian's python3 comes without what `python -m venv` needs.
if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
  package=python3-venv
  if [ "$as_root" = no ]; then
    say "Python's venv module is not complete here. On Debian: sudo apt install $package; then call make again."
    exit 1
  fi
  say "Installing $package (Debian's Python comes without it) …"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -o Dpkg::Use-Pty=0 --no-install-recommends "$package" >/dev/null
fi

# A .venv that was moved, or whose Python is gone, is made again.
if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
  "$PYTHON" -m venv --clear .venv
fi

# The development lock holds all of the other one.
if [ "$1" = run ] && [ .venv/.dev -nt requirements-dev.lock ] && [ .venv/.dev -nt pyproject.toml ]; then
  touch .venv/.run
  exit 0
fi

began=$SECONDS
say "Installing $(grep -c '^[A-Za-z0-9].*==' "$lock") packages into .venv: once, a minute or so with the download …"
.venv/bin/python -m pip install --quiet --require-hashes --requirement "$lock"
.venv/bin/python -m pip install --quiet --no-deps --no-index --no-build-isolation --editable .
touch .venv/.run
[ "$1" = run ] || touch .venv/.dev
say "Installed in $((SECONDS - began)) s."
