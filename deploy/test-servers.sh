#!/usr/bin/env bash
# Installs the Debian packages of deploy/test-packages.txt that are missing. Where it can't, it says so and succeeds:
# the tests that need them skip by name. No daemon is started, now or by the packages.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

command -v dpkg-query >/dev/null || { say "Not Debian: tests that need servers skip where these are missing."; exit 0; }

missing=()
while read -r package; do
  [[ -z $package || $package == \#* ]] && continue
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done <deploy/test-packages.txt
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
  say "Not installed: ${missing[*]}. Tests that need them are skipped; to run them: sudo apt install ${missing[*]}"
  exit 0
fi

# Debian starts daemons as it installs them, Postfix on every address of the machine. This file forbids it.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
if [[ " ${missing[*]} " == *" postfix "* ]] && command -v debconf-set-selections >/dev/null; then
  # Without this the package writes a configuration of its own, and this machine becomes a mail server.
  echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
fi

began=$SECONDS
say "Installing ${missing[*]} for the integration tests: once, half a minute or so with the download …"
log=$(mktemp)
if { apt-get update -qq && apt-get install -qq -o Dpkg::Use-Pty=0 --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
  say "Installed in $((SECONDS - began)) s."
else
  tail -n 5 "$log" >&2
  say "Could not install ${missing[*]}: tests that need them are skipped."
fi
rm -f "$log"
