"""Which names and addresses are the same, and which are not."""

import uuid

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.bank.models import User
from db.bank.names import IGNORABLE, email_key, username_key
from db.store import Store
from jobs import Rejected
from jobs.create_user import normal_email

SAME_NAME = {
    "case": ("alice", "ALICE"),
    "sharp s": ("Straße", "STRASSE"),
    "capital sharp s": ("STRAẞE", "strasse"),
    "accents": ("Jos\u00e9", "Jose\u0301"),
    "order of marks": ("q\u0307\u0323", "q\u0323\u0307"),
    "width": ("ｆｕｌｌ", "full"),
    "final sigma": ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    "iota below": ("\u1fb3", "\u03b1\u03b9"),
    "ligature": ("\ufb01n", "FIN"),
    "dotted capital I": ("\u0130", "i\u0307"),
    "Kelvin sign": ("\u212a", "k"),
    "bold letters": ("\U0001d400da", "ada"),
    "superscript": ("ada²", "ada2"),
    "Cherokee": ("\uab70", "\u13a0"),
    "non-joiner": ("a\u200cda", "ada"),
    "joiner": ("a\u200dda", "ada"),
    "soft hyphen": ("ada\u00admant", "adamant"),
    "word joiner": ("\u2060ada", "ada"),
    "space without width": ("ada\u200b", "ada"),
    "mark of direction": ("ada\u200f", "ada"),
    "text or emoji": ("\u2764\ufe0f", "\u2764"),
    "variant of an ideograph": ("葛\U000e0100", "葛"),
    "grapheme joiner": ("a\u034fda", "ada"),
    "grapheme joiner between a letter and its mark": ("e\u034f\u0301", "é"),
    "Mongolian variant": ("\u1820\u180b", "\u1820"),
    "Khmer vowel that is not seen": ("\u1780\u17b4", "\u1780"),
    "Hangul filler": ("ada\u3164", "ada"),
    "half width of filler": ("ada\uffa0", "ada"),
    "tag": ("ada\U000e0061", "ada"),
    "what is kept for more of these": ("ada\U000e0fff", "ada"),
}

OTHER_NAME = {
    "accent": ("jose", "josé"),
    "dotless i": ("ı", "i"),
    "Cyrillic a": ("аda", "ada"),
    "hyphen that is seen": ("ada-mant", "adamant"),
    "blank of Braille": ("ada\u2800", "ada"),
    "newest letters": ("\U00010d50", "\U00010d51"),
}


@pytest.mark.parametrize(("first", "second"), SAME_NAME.values(), ids=SAME_NAME)
def test_names_that_nobody_can_tell_apart_by_rule_have_one_key(first, second):
    assert username_key(first) == username_key(second)


@pytest.mark.parametrize(("first", "second"), OTHER_NAME.values(), ids=OTHER_NAME)
def test_names_that_differ_in_what_is_seen_have_two_keys(first, second):
    assert username_key(first) != username_key(second)


def test_what_a_key_ignores_is_what_unicode_calls_ignorable():
    ours, unicode_s = regex.compile(f"[{IGNORABLE}]"), regex.compile(r"\p{DI}")
    everything = [chr(code) for code in range(0x110000)]

    assert [one for one in everything if ours.match(one)] == [
        one for one in everything if unicode_s.match(one)
    ]


@given(st.text())
@example("ͺ\u0651\u0345")
@example("\U0001d15e\u3164\u0301")
def test_the_key_of_a_key_is_itself(name):
    assert username_key(username_key(name)) == username_key(name)


@given(st.text(), st.sampled_from(["\u200d", "\ufe0f", "\u034f", "\u3164"]), st.integers(0, 9))
def test_an_ignorable_character_changes_no_key_wherever_it_stands(name, ignorable, place):
    assert username_key(name[:place] + ignorable + name[place:]) == username_key(name)


SAME_ADDRESS = {
    "case": ("Ada@Example.org", "ada@EXAMPLE.ORG"),
    "domain in either form": ("ada@bücher.example.org", "ada@xn--bcher-kva.example.org"),
    "domain in either form and case": ("ada@BÜCHER.example.org", "ada@XN--BCHER-KVA.example.org"),
    "decomposed domain": ("ada@bu\u0308cher.example.org", "ada@bücher.example.org"),
    "wide domain": ("ada@ｅｘａｍｐｌｅ.org", "ada@example.org"),
    "ideographic full stop": ("ada@example。org", "ada@example.org"),
    "soft hyphen in the domain": ("ada@exam\u00adple.org", "ada@example.org"),
    "decomposed before the @": ("jose\u0301@example.org", "josé@example.org"),
    "capitals before the @": ("JOSÉ@example.org", "josé@example.org"),
    "capital sigma": ("ΑΔΑΣ@example.org", "αδας@example.org"),
}

OTHER_ADDRESS = {
    "sharp s": ("straße@example.org", "strasse@example.org"),
    "ligature": ("ﬁn@example.org", "fin@example.org"),
    "width before the @": ("ａda@example.org", "ada@example.org"),
    "superscript": ("ada²@example.org", "ada2@example.org"),
    "long s": ("muſe@example.org", "muse@example.org"),
    "micro": ("\u00b5@example.org", "\u03bc@example.org"),
    "final sigma": ("αδας@example.org", "αδασ@example.org"),
    "joiner before the @": ("a\u200dda@example.org", "ada@example.org"),
    "dots": ("a.da@example.org", "ada@example.org"),
    "sub-address": ("ada+x@example.org", "ada@example.org"),
    "sharp s in the domain": ("ada@straße.example.org", "ada@strasse.example.org"),
    "final sigma in the domain": ("ada@αδας.example.org", "ada@αδασ.example.org"),
}


@pytest.mark.parametrize(("first", "second"), SAME_ADDRESS.values(), ids=SAME_ADDRESS)
def test_one_mailbox_has_one_key_however_its_address_is_written(first, second):
    assert email_key(first) == email_key(second)


@pytest.mark.parametrize(("first", "second"), OTHER_ADDRESS.values(), ids=OTHER_ADDRESS)
def test_addresses_that_a_server_may_tell_apart_have_two_keys(first, second):
    assert email_key(first) != email_key(second)


@pytest.mark.parametrize("pair", sorted(SAME_ADDRESS.keys() - {"soft hyphen in the domain"}))
def test_the_form_that_is_kept_has_the_key_of_the_form_that_was_given(pair):
    for address in SAME_ADDRESS[pair]:
        kept = normal_email(address)

        assert isinstance(kept, str)
        assert email_key(kept) == email_key(address)


@pytest.mark.parametrize(
    "address",
    [
        "u@corp.local",
        "a@localhost",
        "x@y.test",
        "x@y.invalid",
        "x@1.168.192.in-addr.arpa",
        "x@hidden.onion",
        "x@[127.0.0.1]",
        f"{'x' * 65}@example.org",
        f"{'x' * 200}@example.org",
        f"{'é' * 65}@example.org",
        f"x@{'y' * 64}.org",
        '"a b"@example.org',
        "Ada <ada@example.org>",
        "a..b@example.org",
        "ada@example.org.",
        "a\u200dda@example.org",
    ],
)
def test_an_address_that_no_mail_from_anywhere_can_reach_is_rejected(address):
    rejected = normal_email(address)

    assert isinstance(rejected, Rejected)
    assert rejected.code == "email_invalid"


@pytest.mark.parametrize(
    "address",
    [
        "ada@example.org",
        f"{'x' * 64}@example.org",
        "ada+bank@mail.example.co.uk",
        "josé@example.org",
        "ada@bücher.example.org",
        "δοκιμή@παράδειγμα.ευ",
    ],
)
def test_an_address_that_mail_can_reach_is_kept_as_it_is_written(address):
    assert normal_email(address) == address


async def create(sessions, username=None, email=None):
    async with sessions() as session, session.begin():
        return await Store(session).users.create(
            username=username or uuid.uuid4().hex, email=email or f"{uuid.uuid4().hex}@example.com"
        )


@pytest.mark.parametrize(("first", "second"), SAME_NAME.values(), ids=SAME_NAME)
async def test_a_name_is_taken_in_every_form_that_is_the_same_name(sessions, first, second):
    ending = uuid.uuid4().hex[:8]
    assert isinstance(await create(sessions, first + ending), uuid.UUID)

    assert await create(sessions, second + ending) == "username_taken"


@pytest.mark.parametrize(("first", "second"), SAME_ADDRESS.values(), ids=SAME_ADDRESS)
async def test_an_address_is_taken_in_every_form_of_its_mailbox(sessions, first, second):
    run = f"{uuid.uuid4().hex[:8]}."
    assert isinstance(await create(sessions, email=run + first), uuid.UUID)

    assert await create(sessions, email=run + second) == "email_taken"


@pytest.mark.parametrize(("first", "second"), OTHER_ADDRESS.values(), ids=OTHER_ADDRESS)
async def test_an_address_takes_no_other_mailbox_s(sessions, first, second):
    run = f"{uuid.uuid4().hex[:8]}."
    assert isinstance(await create(sessions, email=run + first), uuid.UUID)

    assert isinstance(await create(sessions, email=run + second), uuid.UUID)


async def test_a_name_is_kept_as_it_was_written(sessions):
    name = f"\u200cJose\u0301\u3164{uuid.uuid4().hex}"
    user_id = await create(sessions, name)

    async with sessions() as session:
        user = await Store(session).users.get(user_id)

    assert user is not None
    assert user.username == name


async def test_the_name_with_the_longest_key_can_be_taken(sessions):
    # No character grows by more in a compatibility form, and an entry of an index has a limit.
    name = "\ufdfa" * 64
    assert isinstance(await create(sessions, name), uuid.UUID)

    assert await create(sessions, name) == "username_taken"


async def test_a_user_that_is_renamed_in_python_is_found_by_the_new_name(sessions):
    user_id, name = await create(sessions), uuid.uuid4().hex
    async with sessions() as session, session.begin():
        user = await session.get(User, user_id)
        user.username, user.email = name.upper(), f"{name.upper()}@example.com"

    assert await create(sessions, name) == "username_taken"
    assert await create(sessions, email=f"{name}@example.com") == "email_taken"


@pytest.mark.parametrize("key", [None, ""])
async def test_the_database_keeps_no_user_without_a_key(sessions, key):
    async with sessions() as session:
        with pytest.raises(DBAPIError, match="username"):
            await session.execute(
                text("""
                    INSERT INTO users (username, username_key, email, email_key)
                    VALUES ('\u3164', :key, 'a@example.org', 'a@example.org')"""),
                {"key": key},
            )
