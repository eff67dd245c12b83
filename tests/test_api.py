"""The HTTP interface of a running service, and the command line beside it."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.mailvane import Mailvane, mailvane
from tests.waiting import until


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailvane]:
    with mailvane(tmp_path_factory.mktemp("api"), "") as running:
        yield running


def post(service: Mailvane, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any], Any]:
    request = urllib.request.Request(f"{service.url}{path}", body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


def get(service: Mailvane, path: str, **headers: str) -> tuple[int, bytes, Any]:
    request = urllib.request.Request(f"{service.url}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def line(**changes: Any) -> bytes:
    event = {"kind": "sent", "at": datetime.now(UTC).isoformat(), "message_id": "<m1@shop.example>", **changes}
    return json.dumps({name: value for name, value in event.items() if value is not None}).encode()


def token(service: Mailvane) -> dict[str, str]:
    return {"Authorization": f"Bearer {(service.config.parent / 'data/token').read_text().strip()}"}


def turn(service: Mailvane, wish: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    status, said, _ = post(service, "/v1/actions", json.dumps(wish).encode(), **(headers or token(service)))
    return status, said


def test_good_lines_are_taken_and_bad_ones_named(service: Mailvane):
    body = b"\n".join(
        [line(), line(at="yesterday"), b"{", line(segment="x"), line(message_id=None), line(colour="red")]
    )
    status, said, _ = post(service, "/v1/events", body)
    assert (status, said["accepted"], said["rejected_count"]) == (202, 1, 5)
    assert [item["where"] for item in sorted(said["rejected"], key=lambda item: item["where"])] == [
        f"line {number}" for number in range(2, 7)
    ]


def test_a_request_with_no_good_line_is_refused(service: Mailvane):
    status, said, _ = post(service, "/v1/events", line(kind="lost"))
    assert status == 422
    assert "kind" in said["rejected"][0]["why"]


def test_an_event_out_of_time_is_set_aside(service: Mailvane):
    far = [line(at="2099-01-01T00:00:00Z"), line(at=(datetime.now(UTC) - timedelta(days=31)).isoformat())]
    status, said, _ = post(service, "/v1/events", b"\n".join([line(), *far]))
    assert (status, said["accepted"], said["rejected_count"]) == (202, 1, 2)
    kept = service.get("/v1/rejected")["rejected"]
    assert len(kept) <= 100
    assert {"at: older than events are kept", "at: the time is ahead of our clock"} <= {item["why"] for item in kept}
    assert [item["where"] for item in said["rejected"]] == ["line 2", "line 3"]


def test_an_empty_body_is_a_sign_of_life(service: Mailvane):
    status, said, _ = post(service, "/v1/events", b"")
    assert (status, said["accepted"]) == (202, 0)


def test_a_body_that_is_too_large_is_refused(service: Mailvane):
    status, said, _ = post(service, "/v1/events", b"x" * ((16 << 20) + 1))
    assert status == 413
    assert "fewer lines" in said["remedy"]


def test_a_recipient_in_a_rejected_line_is_never_shown(service: Mailvane):
    post(service, "/v1/events", line(recipient="jan.kowalski@example.net", kind="lost"))
    assert "jan.kowalski" not in json.dumps(service.get("/v1/rejected"))


def test_unknown_labels_are_named(service: Mailvane):
    status, body, _ = get(service, "/v1/check?tenant=s1&colour=red&size=xl")
    assert status == 422
    assert "colour, size" in json.loads(body)["error"]


def test_a_label_that_is_too_long_is_refused(service: Mailvane):
    assert get(service, f"/v1/check?tenant={'x' * 201}")[0] == 422


def test_a_question_about_a_segment_needs_its_tenant(service: Mailvane):
    assert get(service, "/v1/check?segment=lapsed")[0] == 422


def test_all_nine_labels_may_be_asked_about(service: Mailvane):
    labels = "ip=192.0.2.1&domain=d&provider=p&stream=s&tenant=t&segment=g&campaign=c&variant=v&region=r"
    status, body, _ = get(service, f"/v1/check?{labels}")
    assert (status, json.loads(body)["answer"]) == (200, "send")


def test_without_the_token_no_key_turns(service: Mailvane):
    wish = {"deed": "pause", "scope": {"tenant": "x"}, "for": "5m", "why": "test"}
    assert turn(service, wish, Authorization="Bearer wrong")[0] == 401
    assert turn(service, wish, Authorization="")[0] == 401
    assert service.answer(tenant="x") == "send"


def test_a_pause_by_api_holds_until_it_is_resumed(service: Mailvane):
    status, said = turn(
        service, {"deed": "pause", "scope": {"tenant": "s2"}, "for": "5m", "why": "test", "who": "marta"}
    )
    assert status == 201
    lease = said["actions"][0]
    assert lease["who"] == "marta"
    assert service.answer(tenant="s2", segment="any", stream="transactional") == "held"
    assert service.answer(tenant="s3") == "send"
    status, said = turn(service, {"deed": "resume", "lease": lease["id"]})
    assert status == 201
    assert [action["deed"] for action in said["actions"]] == ["resume", "allow"]
    assert service.answer(tenant="s2", segment="any") == "send"


@pytest.mark.parametrize(
    "wish",
    [
        {"deed": "pause", "scope": {}, "for": "5m", "why": "x"},
        {"deed": "pause", "scope": {"tenant": "x"}, "for": "soon", "why": "x"},
        {"deed": "pause", "scope": {"tenant": "x"}, "for": "5m"},
        {"deed": "pause", "scope": {"seller": "x"}, "for": "5m", "why": "x"},
        {"deed": "explode", "scope": {"tenant": "x"}},
        {"deed": "resume", "lease": "none"},
        {"deed": "pause", "scope": {"tenant": "x"}, "for": "5m", "why": "x", "colour": "red"},
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_a_reason(service: Mailvane, wish: dict[str, Any]):
    status, said = turn(service, wish)
    assert status == 422
    assert said["error"]


def test_a_command_beside_the_service_is_heard(service: Mailvane):
    told = service.command("pause", "tenant=s5", "segment=a", "--for", "5m", "--why", "a test", "--as", "jan")
    lease = told.split()[0]
    until(lambda: service.answer(tenant="s5", segment="a") == "held", "the gate to read the pause")
    assert lease in service.command("leases")
    service.command("resume", lease)
    until(lambda: service.answer(tenant="s5", segment="a") == "send", "the gate to read the resume")
    service.command("allow", "tenant=s6")
    assert any(one["deed"] == "allow" for one in json.loads(service.command("leases", "--json"))["leases"])


def test_the_lease_set_is_not_sent_twice(service: Mailvane):
    status, body, headers = get(service, "/v1/leases")
    assert status == 200
    assert headers["ETag"] == f'"{json.loads(body)["generation"]}"'
    assert get(service, "/v1/leases", **{"If-None-Match": headers["ETag"]})[0] == 304


def test_a_long_poll_ends_when_the_set_changes(service: Mailvane):
    _, _, headers = get(service, "/v1/leases")
    found: list[tuple[int, bytes, Any]] = []
    poll = threading.Thread(
        target=lambda: found.append(get(service, "/v1/leases?wait=30", **{"If-None-Match": headers["ETag"]}))
    )
    poll.start()
    turn(service, {"deed": "pause", "scope": {"tenant": "s9"}, "for": "5m", "why": "test"})
    poll.join(timeout=25)
    assert not poll.is_alive()
    status, body, _ = found[0]
    assert status == 200
    assert any(lease["scope"] == {"tenant": "s9"} for lease in json.loads(body)["leases"])


def test_the_generation_moves_when_a_lease_ends_by_itself(service: Mailvane):
    turn(service, {"deed": "pause", "scope": {"tenant": "s10"}, "for": "1s", "why": "test"})
    before = service.get("/v1/leases")
    until(lambda: service.get("/v1/leases")["generation"] > before["generation"], "the generation to move")
    assert service.answer(tenant="s10") == "send"


def test_the_metrics_can_be_parsed_and_hold_no_name_from_mail(service: Mailvane):
    post(service, "/v1/events", line(tenant="secretseller", message_id="<m2@shop.example>"))
    text = get(service, "/metrics")[1].decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {
        "mailvane_observations",
        "mailvane_leases",
        "mailvane_check_duration_seconds",
        "mailvane_build_info",
    } <= names
    assert "secretseller" not in text
    assert "mailvane_applied_total" in text


def test_the_service_says_that_it_is_ready(service: Mailvane):
    assert json.loads(get(service, "/readyz")[1]) == {"status": "ready", "errors": {}}


def test_series_are_asked_for_by_known_labels(service: Mailvane):
    assert get(service, "/v1/series?by=segment")[0] == 422
    assert get(service, "/v1/series?by=colour")[0] == 422
    assert json.loads(get(service, "/v1/series?by=tenant,segment&rate=deferral")[1])["rate"] == "deferral"


def test_the_page_and_its_policy_are_served(service: Mailvane):
    status, body, headers = get(service, "/")
    assert status == 200
    assert b"Mailvane" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_the_shape_of_an_event_is_published(service: Mailvane):
    assert "message_id" in json.dumps(service.get("/v1/events/schema"))


def test_a_second_service_on_the_same_data_says_so(service: Mailvane, tmp_path: Path):
    other = tmp_path / "other.toml"
    other.write_text(service.config.read_text().replace(f":{service.port}", ":0"), "utf-8")
    import subprocess

    from tests.servers.mailvane import program

    done = subprocess.run(
        [*program(), "--config", str(other), "run"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_time_before_there_was_mail_stops_nothing(service: Mailvane):
    status, said, _ = post(service, "/v1/events", line(at="0001-01-01T00:00:00+10:00", message_id="<old@shop.example>"))
    assert (status, said["rejected_count"]) == (422, 1)
    post(service, "/v1/events", line(message_id="<after@shop.example>"))
    until(lambda: service.get("/v1/facts")["waiting"] == 0, "what came after it to be applied")
    assert json.loads(get(service, "/readyz")[1])["status"] == "ready"


def test_what_a_stranger_writes_never_becomes_a_metric_or_shows_an_address(service: Mailvane):
    post(service, "/v1/events", line(**{"jo.bloggs@example.com": 1}))
    post(service, "/v1/events", line(reply="x" * 120, recipient="jo.bloggs@example.com", kind="lost"))
    assert "bloggs" not in get(service, "/metrics")[1].decode()
    assert "jo.bloggs" not in json.dumps(service.get("/v1/rejected"))


def test_a_body_of_very_many_lines_is_refused_at_once(service: Mailvane):
    assert post(service, "/v1/events", b"a\n" * 200_001)[0] == 413


def test_headers_without_end_are_refused(service: Mailvane):
    import socket

    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as stranger:
        stranger.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        answer = b""
        try:
            for _ in range(2000):
                stranger.sendall(b"X-Filler: " + b"a" * 1000 + b"\r\n")
            answer = stranger.recv(100)
        except OSError:
            answer = answer or b"HTTP/1.1 400"
        assert answer.startswith(b"HTTP/1.1 4")


def test_an_empty_token_file_opens_nothing(tmp_path: Path):
    from monitor.errors import UserError
    from monitor.service import token as read

    (tmp_path / "token").write_text("")
    with pytest.raises(UserError, match="holds no token"):
        read(tmp_path / "token")
    (tmp_path / "token").unlink()
    assert len(read(tmp_path / "token")) >= 32
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0


def test_the_service_ends_in_order_while_dispatchers_wait(tmp_path: Path):
    with mailvane(tmp_path, "") as service:
        _, _, headers = get(service, "/v1/leases")
        found: list[tuple[int, bytes, Any]] = []
        poll = threading.Thread(
            target=lambda: found.append(get(service, "/v1/leases?wait=30", **{"If-None-Match": headers["ETag"]}))
        )
        poll.start()
        service.stop()
        poll.join(timeout=20)
        assert "Traceback" not in service.log.read_text()
