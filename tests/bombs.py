"""Letters made to stop whoever reads them: deep, wide, long, endlessly coded. All of it is of our making."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from itertools import cycle, islice

MB = 1 << 20
TOP = b"From: MAILER-DAEMON@mx.example\r\nTo: bounces@shop.example\r\nSubject: failure notice\r\nMIME-Version: 1.0\r\n"
REPORT = TOP + b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
PLAIN = TOP + b"Content-Type: text/plain; charset=%s\r\nContent-Transfer-Encoding: %s\r\n\r\n"
FAILED = (
    b"Final-Recipient: rfc822; jo@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; %s\r\n\r\n"
)
# Codecs of Python that are no charset, or take more than they give; an attacker may name any.
CODECS = (
    *("utf-7", "utf-16", "utf-32", "utf-8-sig", "punycode", "idna", "zlib_codec", "zip", "bz2_codec", "rot13"),
    *("hex_codec", "base64_codec", "uu_codec", "quopri_codec", "unicode_escape", "raw_unicode_escape", "undefined"),
    *("iso-2022-kr", "hz", "mbcs", "cp65001", "../../etc/passwd", "x" * 5_000, "", "\0", "\udce9"),
)


def report_of(status: bytes) -> bytes:
    return REPORT + b"--b\r\nContent-Type: message/delivery-status\r\n\r\n" + status + b"\r\n--b--\r\n"


def _plain(text: bytes, charset: bytes = b"utf-8", coding: bytes = b"8bit") -> bytes:
    return PLAIN % (charset, coding) + text


def _nested(depth: int, kind: bytes = b"multipart/mixed") -> bytes:
    parts = (b'Content-Type: %s; boundary="%d"\r\n\r\n--%d\r\n' % (kind, n, n) for n in range(depth))
    return TOP + b"".join(parts) + b"\r\nthe end"


def _inside(depth: int) -> bytes:
    """Messages in messages."""
    return TOP + b"Content-Type: message/rfc822\r\n\r\n" * depth + b"the end"


def _edges(count: int) -> bytes:
    """Lines that begin as the boundary does, and end otherwise: each is looked at, and none is one."""
    edge = b"b" * 60
    return TOP + b'Content-Type: multipart/mixed; boundary="' + edge + b'"\r\n\r\n' + (b"\r\n--" + edge + b"x") * count


def _loose_edges(count: int) -> bytes:
    """Multiparts without a boundary, so that delimiters must be guessed."""
    return (
        TOP
        + b"Content-Type: multipart/mixed\r\n\r\n"
        + b"".join(b"--%d\r\nContent-Type: multipart/mixed\r\n\r\n" % n for n in range(count))
    )


def _wide(count: int, kind: bytes = b"text/plain") -> bytes:
    return REPORT + b"--b\r\nContent-Type: %s\r\n\r\nx\r\n" % kind * count + b"--b--\r\n"


def _soup(size: int, pieces: bytes) -> bytes:
    return bytes(islice(cycle(pieces), size))


def _continued(count: int) -> bytes:
    """RFC 2231: one parameter in very many pieces, out of order."""
    pieces = b"".join(b";\r\n boundary*%d*=%%62" % n for n in reversed(range(count)))
    return TOP + b"Content-Type: multipart/report" + pieces + b"\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"


def _report_of_abuse(fields: bytes) -> bytes:
    return (
        TOP
        + b'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n'
        + b"--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\nUser-Agent: x/1\r\n"
        + fields
        + b"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <1@shop.example>\r\n\r\nx\r\n--b--\r\n"
    )


_WORDS = b"=?utf-8?q?=41?= =?x?b?QUJD?= "
_TALK = b"550 5.1.1 <jo@example.net>: host mx.example[192.0.2.1] said: user unknown "

BOMBS: Mapping[str, Callable[[], bytes]] = {
    "multiparts 10,000 deep": lambda: _nested(10_000),
    "reports 10,000 deep": lambda: _nested(10_000, b"multipart/report; report-type=delivery-status"),
    "messages in 10,000 messages": lambda: _inside(10_000),
    "100,000 headers": lambda: TOP + b"X-Y: z\r\n" * 100_000 + b"\r\nx",
    "100,000 headers of one byte each": lambda: b"a:\n" * 100_000,
    "a header of 10 MB": lambda: TOP + b"X-Long: " + b"y" * 10 * MB + b"\r\n\r\nx",
    "a header folded 500,000 times": lambda: TOP + b"X-Long: y" + b"\r\n y" * 500_000 + b"\r\n\r\nx",
    "a header of 5 MB of blanks": lambda: TOP + b"X-Long: " + b" \t" * 2_500_000 + b"x\r\n\r\nx",
    "a name of a header of 5 MB": lambda: TOP + b"X" * 5 * MB + b": y\r\n\r\nx",
    "a million Received": lambda: b"Received: from a by b\r\n" * MB + TOP + b"\r\nx",
    "100,000 parts": lambda: _wide(100_000),
    "100,000 reports in one": lambda: _wide(100_000, b"message/delivery-status"),
    "100,000 messages in one": lambda: _wide(100_000, b"message/rfc822"),
    "a million recipients": lambda: report_of(
        b"Reporting-MTA: dns; mx.example\r\n\r\n"
        + b"".join(
            b"Final-Recipient: rfc822; c%d@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n" % n
            for n in range(MB)
        )
    ),
    "recipients in one field": lambda: report_of(
        b"Final-Recipient: rfc822; " + b"jo@example.net, " * 300_000 + b"\r\nAction: failed\r\n"
    ),
    "a reply of 5 MB": lambda: report_of(FAILED % (_TALK * 70_000)),
    "a reply of 5 MB of digits": lambda: report_of(FAILED % (b"5" * 5 * MB)),
    "a reply of dots and digits": lambda: report_of(FAILED % _soup(MB, b"5.1.")),
    "a reply of signs": lambda: report_of(FAILED % _soup(MB, b'<>()[]@:;.,-" ')),
    "a status of 5 MB": lambda: report_of(
        b"Final-Recipient: rfc822; a@b.example\r\nStatus: " + b"5." * 2_500_000 + b"\r\n\r\n"
    ),
    "300,000 false boundaries": lambda: _edges(300_000),
    "boundaries that must be guessed": lambda: _loose_edges(100_000),
    "a boundary of nothing but dashes": lambda: (
        TOP + b'Content-Type: multipart/mixed; boundary="-"\r\n\r\n' + b"-" * 5 * MB
    ),
    "a boundary of one dash on 1,000,000 lines": lambda: (
        TOP + b'Content-Type: multipart/mixed; boundary="-"\r\n\r\n' + b"---\r\n" * MB
    ),
    "base64 of 20 MB": lambda: _plain(base64.encodebytes(b"jo@example.net " * MB), coding=b"base64"),
    "base64 that is none": lambda: _plain(b"=" * 5 * MB, coding=b"base64"),
    "quoted-printable of 10 MB": lambda: _plain(b"=3D" * 3_300_000, coding=b"quoted-printable"),
    "quoted-printable of trailing blanks": lambda: _plain((b" " * 70 + b"x\r\n") * 70_000, coding=b"quoted-printable"),
    "uuencoded without an end": lambda: _plain(b"begin 644 x\r\n" + b"M" * 60 * 80_000, coding=b"x-uuencode"),
    "a flood of encoded words": lambda: TOP + b"Subject: " + _WORDS * 300_000 + b"\r\n\r\nx",
    "encoded words that never end": lambda: TOP + b"Subject: " + b"=?utf-8?q?" * 300_000 + b"\r\n\r\nx",
    "encoded words in folds": lambda: TOP + b"Subject: x" + b"\r\n =?utf-8?q?=41?=" * 200_000 + b"\r\n\r\nx",
    "continued parameters": lambda: _continued(100_000),
    "parameters without end": lambda: TOP + b"Content-Type: text/plain" + b'; a="b\\"' * 300_000 + b"\r\n\r\nx",
    "addresses of signs": lambda: _plain(_soup(5 * MB, b"a.b@c.d <@> @@ a@")),
    "an address without end": lambda: _plain(b"a." * 2 * MB + b"@" + b"b." * MB),
    "a line of at signs": lambda: _plain(b"@" * 5 * MB),
    "a line of 5 MB of blanks": lambda: _plain(b"x" + b" " * 5 * MB + b"x"),
    "5 MB of empty lines": lambda: _plain(b"\r\n" * 2_500_000),
    "5 MB of indented lines": lambda: _plain((b" " * 300 + b"\r\n") * 17_000),
    "a rule that is none": lambda: _plain(
        b"Delivery to the following recipients failed:\r\n\r\n<jo@example.net>\r\n" + b"-" * 40_000 + b"x\r\n"
    ),
    "rules within rules": lambda: _plain(
        b"Delivery to the following recipients failed:\r\n\r\n" + (b"-=*|" * 1_000 + b"x\r\n") * 500
    ),
    "brackets": lambda: _plain(b"<" * MB + b">" * MB),
    "quotes": lambda: _plain(b'"' * 2 * MB + b"'" * 2 * MB),
    "colons": lambda: _plain(b"to:" * MB),
    "talk of 5 MB": lambda: _plain(_TALK * 70_000),
    "a session without end": lambda: _plain(b"<<< 550 5.1.1 no such user\r\n>>> RCPT TO:<jo@example.net>\r\n" * 80_000),
    "lists of recipients": lambda: _plain(
        b"Delivery to the following recipients failed:\r\n\r\n"
        + b"".join(b"    <c%d@example.net>\r\n" % n for n in range(200_000))
    ),
    "announcements of lists": lambda: _plain(
        b"Delivery to the following recipients failed permanently:\r\n\r\n" * 60_000
    ),
    "quoted messages": lambda: _plain(b"> From: a@b.example\r\n> To: c@d.example\r\n> Subject: x\r\n> \r\n" * 60_000),
    "a message begun on each line": lambda: _plain(b"From: a@b.example\r\n" * 200_000),
    "tags of HTML": lambda: TOP + b"Content-Type: text/html\r\n\r\n" + b"<p <!-- <![CDATA[ <a href='" * 200_000,
    "entities of HTML": lambda: TOP + b"Content-Type: text/html\r\n\r\n" + b"&lt;&#64;&#x1F4A9;&amp" * 200_000,
    "bytes of no charset": lambda: _plain(bytes(range(128, 256)) * 40_000, charset=b"us-ascii"),
    "nothing but NUL": lambda: b"\0" * 10 * MB,
    "nothing but CR": lambda: b"\r" * 10 * MB,
    "nothing but dashes": lambda: b"-" * 10 * MB,
    "nothing but From": lambda: b"From " * 2 * MB,
    "From_ lines": lambda: b">From a@b.example Tue Nov 24 10:00:00 2026\n" * 100_000,
    "a complaint of 200,000 recipients": lambda: _report_of_abuse(b"Original-Rcpt-To: <jo@example.net>\r\n" * 200_000),
    "a complaint of 200,000 URIs": lambda: _report_of_abuse(b"Reported-URI: http://x.example/\r\n" * 200_000),
    "a complaint with an IP of 5 MB": lambda: _report_of_abuse(b"Source-IP: " + b"1:" * 2_500_000 + b"\r\n"),
    "a date of 5 MB": lambda: TOP + b"Date: Tue, " + b"24 Nov 2026 " * 400_000 + b"\r\n\r\n" + _TALK,
    "a date of parentheses": lambda: TOP + b"Date: " + b"(" * 2 * MB + b"\r\n\r\n" + _TALK,
    "signatures": lambda: (
        b"DKIM-Signature: v=1; a=rsa-sha256; d=example.net; s=a; h=from; bh=x; b=y\r\n" * 50_000 + _report_of_abuse(b"")
    ),
    "tags of a signature": lambda: b"DKIM-Signature: v=1" + b"; h=from:to" * 300_000 + b"\r\n" + _report_of_abuse(b""),
    **{
        f"charset {name[:20]!a}": lambda name=name: _plain(
            b"+ADw- \xff\xfe\0" * 20_000, charset=name.encode("utf-8", "surrogateescape")
        )
        for name in CODECS
    },
    **{
        f"words in charset {name[:20]!a}": lambda name=name: (
            TOP
            + b"Subject: "
            + (b"=?" + name.encode("utf-8", "surrogateescape") + b"?q?+ADw-=ff=fe?= ") * 2_000
            + b"\r\n\r\nx"
        )
        for name in CODECS
    },
}
