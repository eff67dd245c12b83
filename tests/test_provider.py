"""The provider is known by its MX host."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors._provider import learnt, provider_of
from monitor.naming import domain_of


@pytest.mark.parametrize(
    ("relay", "provider"),
    [
        ("gmail-smtp-in.l.google.com", "gmail"),
        ("ASPMX.L.GOOGLE.COM", "gmail"),
        ("alt1.gmail-smtp-in.l.google.com.", "gmail"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx-att.mail.am0.yahoodns.net", "yahoo"),
        ("hotmail-com.olc.protection.outlook.com", "outlook"),
        ("mx2.hotmail.com", "outlook"),
        ("shop-example.mail.protection.outlook.com", "microsoft365"),
        ("shop-example.mail.eo.outlook.com", "microsoft365"),
        ("shop-example.p-v1.mx.microsoft", "microsoft365"),
        ("mx01.mail.icloud.com", "apple"),
        ("mx00.gmx.net", "gmx"),
        ("mx-ha03.web.de", "gmx"),
        ("mx.seznam.cz", "seznam"),
        ("smtp2.AZET.SK", "azet"),
        ("in1-smtp.messagingengine.com", "fastmail"),
        ("eu-smtp-inbound-1.mimecast.com", "mimecast"),
        ("mx0a-00112233.pphosted.com", "proofpoint"),
    ],
)
def test_providers_are_known_by_their_mx_hosts(relay, provider):
    assert provider_of(relay) == provider


def test_a_name_that_only_ends_like_a_providers_is_not_his():
    assert provider_of("mx.notgoogle.com") == "notgoogle.com"


@pytest.mark.parametrize(
    ("relay", "domain"),
    [
        ("Mail.Shop.Example.co.uk", "example.co.uk"),
        ("a.b.c.shop.de", "shop.de"),
        ("shop.de", "shop.de"),
        ("mx.someone.github.io", "github.io"),  # whoever rents out names runs one mail server for them
    ],
)
def test_any_other_relay_is_its_registrable_domain(relay, domain):
    assert provider_of(relay) == domain


@pytest.mark.parametrize("relay", ["", ".", "localhost", "192.0.2.1", "2001:db8::1", "com", "private/dovecot-lmtp"])
def test_what_is_below_no_public_suffix_has_no_provider(relay):
    assert provider_of(relay) == ""


@given(st.text())
def test_any_text_has_an_answer_in_lower_case(relay):
    assert provider_of(relay) == provider_of(relay).lower()


def test_the_domain_of_an_address_is_what_follows_its_last_at():
    assert domain_of('"a@b"@Shop.Example.') == "shop.example"
    assert domain_of("postmaster") == ""


def test_relays_teach_the_provider_of_a_recipients_domain():
    columns = {
        "recipient": ["a@one.example", "b@ONE.example", "c@two.example", "", "e@three.example"],
        "provider": ["gmail", "gmail", "", "gmx", "yahoo"],
    }
    assert learnt(columns) == {"one.example": "gmail", "three.example": "yahoo"}


def test_public_suffixes_are_not_loaded_before_a_relay_needs_them():
    code = "import sys, collectors.sendlog; print('publicsuffixlist' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
