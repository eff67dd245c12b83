#!/usr/bin/env bash
# Runs the tests against the wheel as a user would install it, from a directory outside the checkout.
# What the wheel depends on is borrowed from .venv; the checkout itself is not on the path there.
# The tests about the checkout (its documents and structure) stay behind. Arguments go to pytest.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
python=$checkout/.venv/bin/python
about_the_checkout=(test_docs.py test_structure.py test_benchmarks.py)
# Minutes of real servers and of processes that die: what they find does not depend on how the code was installed.
long=(
  test_postfix.py test_postfix_servers.py test_supervise.py test_processes.py test_queue.py test_holds.py test_held.py
  test_brokers.py test_broker_service.py test_kill.py test_pipeline.py test_interleavings.py test_hard_*.py
  test_strangers.py test_lost_gate.py test_backup.py test_ship.py test_rated.py test_facts.py test_agreement.py test_holes.py
  test_schemathesis.py test_fuzz.py test_cluster.py test_release.py test_road.py test_facts_store.py test_export.py
  test_http.py test_secrets.py test_no_address.py test_tenancy.py test_idor.py test_me.py test_sellers_tell.py
  test_login_page.py test_oidc.py test_sessions.py test_chain.py test_access_log.py test_custody.py test_keyring_kept.py
  test_imap*.py test_maildir.py test_mbox.py test_reports.py test_forged.py test_redos.py test_corpus.py test_arf.py test_verify.py
  test_attribution*.py test_unplaced.py test_suppress*.py test_webhooks.py
  test_quarantine.py test_threats.py test_guard.py test_four_eyes.py test_keys.py test_lost_keyring.py test_hooks.py test_doors.py
)
export PIP_DISABLE_PIP_VERSION_CHECK=1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir "$work/dist" "$checkout"
"$python" -m venv --without-pip "$work/venv"
"$python" -m pip --python "$work/venv/bin/python" install --quiet --no-deps --no-index "$work"/dist/*.whl

# A path in a .pth file is appended, so the wheel comes first; the editable install's own .pth is not followed.
site() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
site "$python" >"$(site "$work/venv/bin/python")/borrowed.pth"

mkdir "$work/elsewhere"
cp -r "$checkout/tests" "$checkout/pyproject.toml" "$work/elsewhere"
(cd "$work/elsewhere/tests" && rm -rf "${about_the_checkout[@]}" ${long[@]})  # unquoted: some are patterns
cd "$work/elsewhere"
echo "Against $(basename "$work"/dist/*.whl), outside the checkout:"
MAILVANE_CHECKOUT=$checkout MAILVANE_INSTALLED=1 MAILVANE_SHARED=${MAILVANE_SHARED:-$checkout/../shared} \
  "$work/venv/bin/python" -m pytest -p no:cacheprovider "$@"
