"""Any bytes are read as mail, within bounds."""

import encodings.aliases
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors._charsets import decoded, unencoded, words
from collectors._mail import FIELDS, PARTS, TEXTS, Headers, read

MIXED = b'Content-Type: multipart/mixed; boundary="b"\n\n'


def test_headers_are_found_in_any_case_unfolded_and_decoded():
    mail = read(b"SUBJECT: =?utf-8?q?gr=C3=BC=C3=9F?=\n =?utf-8?q?_dich?=\nX-A: 1\nx-a: 2\n\nbody")
    assert mail.headers.get("subject") == "grüß dich"
    assert mail.headers.all("X-A") == ("1", "2")
    assert "Subject" in mail.headers
    assert mail.headers.get("none", "-") == "-"


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n", "\r\r\n"], ids=["crlf", "cr", "lf", "crcrlf"])
def test_lines_may_end_as_they_like(end):
    lines = ["From a@b.example Tue Nov 10 08:00:00 2026", "Subject: x", "", "one", "two"]
    mail = read(end.join(lines).encode())
    assert mail.envelope == "a@b.example"
    assert mail.headers.get("subject") == "x"
    assert mail.parts[0].text.rstrip() == "one\ntwo"


def test_nul_bytes_are_left_out():
    assert read(b"Sub\0ject: x\n\nbo\0dy").parts[0].text == "body"


def test_parts_are_found_without_a_closing_boundary_and_without_a_declared_one():
    body = b"--b\nContent-Type: text/plain\n\none\n--b\nContent-Type: text/html\n\n<p>two"
    for head in (MIXED, b"Content-Type: multipart/mixed\n\n", b"Content-Type: multipart/mixed; boundary=other\n\n"):
        assert [(part.kind, part.text) for part in read(head + body).parts] == [
            ("text/plain", "one"),
            ("text/html", "<p>two"),
        ]


def test_a_parameter_folded_without_its_blank_is_read():
    mail = read(b"Content-Type: multipart/mixed;\nboundary=b\n\n--b\nContent-Type: text/plain\n\none\n--b--\n")
    assert [part.text for part in mail.parts] == ["one"]


def test_a_boundary_that_begins_another_is_not_mistaken_for_it():
    mail = read(MIXED + b"--b\nContent-Type: text/plain\n\n--bc\none\n--b--\n")
    assert [part.text for part in mail.parts] == ["--bc\none"]


def test_the_message_that_came_back_is_no_part():
    mail = read(
        MIXED + b"--b\n\nwhy\n--b\nContent-Type: message/rfc822\n\n>From x\nMessage-ID: <1@a>\n\nhello\n--b--\n"
    )
    assert [part.text for part in mail.parts] == ["why"]
    assert mail.original is not None
    assert mail.original.get("message-id") == "<1@a>"
    assert b"hello" in mail.returned


def test_a_message_quoted_in_a_text_is_found():
    mail = read(
        b"Subject: failure\n\nIt failed.\n\nReturn-Path: <a@b.example>\nReceived: by x;\n today\nMessage-ID: <2@a>\n\nhi"
    )
    assert mail.original is not None
    assert mail.original.get("message-id") == "<2@a>"
    assert mail.parts[0].own == "It failed.\n\n"


def test_prose_with_a_colon_is_no_quoted_message():
    assert read(b"\n\nTo: whom it may concern\nSubject: cats\n\nFrom: here\n").original is None


def test_a_report_names_its_type():
    mail = read(b"Content-Type: Multipart/Report; Report-Type=Delivery-Status; boundary=b\n\n--b\n\nx\n--b--\n")
    assert mail.report == "delivery-status"
    assert mail.kind == "multipart/report"


@pytest.mark.parametrize(
    ("content", "charset", "text"),
    [
        ("grüß", "utf-8", "grüß"),
        ("grüß", "iso-8859-1", "grüß"),
        ("届きません", "iso-2022-jp", "届きません"),
        ("届きません", "shift_jis", "届きません"),
        ("无法投递", "gb2312", "无法投递"),
        ("не доставлено", "koi8-r", "не доставлено"),
    ],
    ids=["utf-8", "latin", "iso-2022-jp", "shift_jis", "gb2312", "koi8-r"],
)
def test_text_is_read_in_its_charset(content, charset, text):
    head = f"Content-Type: text/plain; charset={charset}\n\n".encode()
    assert read(head + content.encode(charset)).parts[0].text == text


@pytest.mark.parametrize("charset", ["iso-2022-jp", "shift_jis", "euc_jp", "utf-8"])
def test_japanese_text_is_read_where_nobody_declares_its_charset(charset):
    text = "このメールは送信できませんでした。アドレスをごかくにんください。"
    assert decoded(text.encode(charset), "") == text


def test_a_charset_that_does_not_exist_spoils_nothing():
    for charset in ("no-such", "rot13", "zlib", "idna", "punycode", "unicode_escape", "x" * 500, "\0"):
        assert decoded("grüß".encode(), charset) == "grüß"


def test_halves_of_characters_never_get_through():
    decoded(b"+2AA-\xff", "utf-7").encode()


def test_broken_codings_give_what_can_be_read():
    assert unencoded(b"aGVs bG8\n*", "base64") == b"hello"
    assert unencoded(b"a=3Db=\nc=ZZ", "quoted-printable") == b"a=bc=ZZ"
    assert unencoded(b"as is", "x-unknown") == b"as is"


def test_encoded_words_in_pieces_are_one_text():
    halves = "=?utf-8?b?44E=?= =?utf-8?b?gg==?="
    assert words(f"a {halves} b =?none?q?c?= =?broken") == "a あ b c =?broken"


@given(st.binary(max_size=2000))
def test_no_bytes_raise(raw):
    mail = read(raw)
    assert mail.size == len(raw)
    for part in mail.parts:
        part.text.encode()


@given(st.binary(max_size=200), st.sampled_from(sorted(set(encodings.aliases.aliases.values()))))
def test_no_charset_raises(content, charset):
    decoded(content, charset).encode()


@given(st.text(alphabet="=?utf-8QqbB _AZ\n \u00e9", max_size=300))
def test_no_encoded_word_raises(value):
    words(value).encode()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.from_regex(r"[A-Za-z-]{1,10}", fullmatch=True), st.text("ab c", min_size=1)), max_size=20))
def test_headers_keep_their_order(fields):
    assert [name for name, _ in Headers(fields)] == [name.lower() for name, _ in fields]


def _of(megabytes, piece):
    return piece * (megabytes * 1_000_000 // len(piece))


HOSTILE = {
    "fields": b"X-A: b\n",
    "folds": b"a\n ",
    "words": b"=?utf-8?q?a",
    "boundaries": b"--b\n",
    "almost boundaries": b"--bc\n",
    "messages": b"--b\nContent-Type: message/rfc822\n\nA: b\n",
    "multiparts": b"--b\nContent-Type: multipart/mixed; boundary=b\n\n",
    "nothing": b"\n",
    "From lines": b"From a\n",
    "quoted": b"Received: a\n\n",
    "semicolons": b";\n",
}


@pytest.mark.parametrize("piece", list(HOSTILE.values()), ids=list(HOSTILE))
def test_hostile_mail_ends_in_time_and_memory(piece):
    content = _of(5, piece)
    for raw in (content, MIXED + content, b"Subject: " + content):
        tracemalloc.start()
        began = time.process_time()
        mail = read(raw)
        assert time.process_time() - began < 2
        assert tracemalloc.get_traced_memory()[1] < 6 * len(raw) + 20_000_000
        tracemalloc.stop()
        assert len(mail.parts) <= 2 * PARTS
        assert len(mail.headers) <= FIELDS
        assert sum(len(part.text) for part in mail.parts) <= TEXTS


def test_multiparts_nest_no_deeper_than_they_may():
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(1000))
    assert len(read(nested).parts) == 1
