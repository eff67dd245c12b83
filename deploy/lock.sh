#!/usr/bin/env bash
# Resolves pyproject.toml anew: requirements.lock is what runs (and builds), requirements-dev.lock holds the tools too.
# Both hold for every platform and name no place to fetch from.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1

# uv alone resolves for all platforms at once. It is needed for nothing else, so it lives apart from the lock.
[ -x .venv/uv/bin/uv ] || { .venv/bin/python -m venv .venv/uv && .venv/uv/bin/pip install --quiet uv; }
compile() {
  .venv/uv/bin/uv pip compile --quiet --universal --generate-hashes --no-header "$@" pyproject.toml
}
compile --upgrade --group dev --output-file requirements-dev.lock
# One version of each package in both files, so that one .venv serves both.
compile --group build --constraint requirements-dev.lock --output-file requirements.lock
