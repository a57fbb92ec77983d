"""The scrubber: no key in any spelling, every name readable, and time that is bounded."""

import base64
import secrets
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.encodings import ACCESS_KEYS, SECRET_KEYS, around, encodings, leaks

from cosi_operator.scrub import (
    MESSAGE_LIMIT_BYTES,
    NAME_LIMIT,
    READ_LIMIT,
    KnownSecrets,
    cut_bytes,
    escaped,
    scrub,
    shown_message,
    shown_name,
)

SENTENCES = (
    "{}",
    "cannot use {} for bucket photos",
    "key={}.",
    "denied for user 'joe': {} (code 403)",
)


@pytest.mark.parametrize("key", [*SECRET_KEYS, *ACCESS_KEYS])
def test_no_key_is_readable_in_any_encoding(key: str) -> None:
    for name, spelling in encodings(key):
        for sentence in SENTENCES:
            shown = scrub(sentence.format(spelling))
            assert not leaks(shown, key), (name, shown)
            assert not leaks(shown, spelling), (name, shown)
            assert spelling not in shown, (name, shown)


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        *zip(ACCESS_KEYS, SECRET_KEYS, strict=True),
        pytest.param("backup-operator", "correct-horse-battery", id="words as keys"),
    ],
)
def test_no_named_value_is_readable(key: str, secret: str) -> None:
    for name, text in around(key, secret):
        shown = scrub(text)
        assert not leaks(shown, secret), (name, shown)


# The second half of AWS's documented secret reads as words: RfiCYEXAMPLEKEY.
@given(
    st.sampled_from([*SECRET_KEYS[1:], *ACCESS_KEYS]), st.integers(1, 39), st.sampled_from("\n ")
)
def test_a_key_that_is_cut_once_is_not_readable(key: str, at: int, separator: str) -> None:
    text = f"the key {key[:at]}{separator}{key[at:]} is refused"
    assert not leaks(scrub(text), key)


@pytest.mark.parametrize(
    "text",
    [
        "bucket-6b3d2f10-1c2d-4e5f-8a9b-0c1d2e3f4a5b is not empty",
        "account ba-6b3d2f10-1c2d-4e5f-8a9b-0c1d2e3f4a5b exists",
        "BUCKET-6B3D2F10-1C2D-4E5F-8A9B-0C1D2E3F4A5B",
        "pod seaweedfs-s3-5d4f8c7b9d-x2k4j of node gke-prod-1-default-pool-a1b2c3d4-x7k2",
        'secrets "team-prod-east-gold-2024" is forbidden: User "system:serviceaccount:cosi:sidecar"'
        ' cannot create resource "secrets" in API group "" in the namespace "team-7f3k"',
        "create secrets r03: exceeded quota: q, requested: secrets=1, used: secrets=4",
        "PUT /apis/objectstorage.k8s.io/v1alpha1/namespaces/team1/bucketclaims/photos2/status",
        "com.amazonaws.services.s3.model.AmazonS3Exception: Access Denied (Status Code: 403)",
        "dial tcp 10.96.0.1:8333: connect: connection refused at 2026-03-02T10:15:00Z",
        "InvalidAccessKeyId: The AWS Access Key Id you provided does not exist in our records.",
        "SignatureDoesNotMatch: The request signature we calculated does not match",
        "the token has expired", "token: expired", "basic authentication failed",
        "quota 1073741 of 2097152 KiB used at 13,200/s, 17 MiB/s, 11% full",
        "object mybucket20240101archive of class gold", "no providers: IMDS, EC2, ENV, SSO",
    ],
)  # fmt: skip
def test_names_and_sentences_stay_as_they_are(text: str) -> None:
    assert scrub(text) == text


def test_the_text_that_is_read_is_bounded_and_a_split_word_is_omitted() -> None:
    text = "word " * 2000
    shown = scrub(text)
    assert len(shown) <= READ_LIMIT + 2
    assert shown.endswith("word …")
    key = SECRET_KEYS[1]
    shown = scrub("a" * (READ_LIMIT - 10) + " " + key)
    assert key[:5] not in shown


PIECES = st.sampled_from(
    [
        *("password=", "token: ", "secret", '"', "'", "\\", '\\"', "Authorization: ", "Bearer "),
        *("AWS4-HMAC-SHA256 ", "-----BEGIN KEY-----", "-----END", "://", "u:p@", "eyJhbGciOi", "."),
        *("%41", "\\u0041", "&#65;", "\\x41", "%25", "<id>", "[redacted]", " ", "\n"),
        *("-", ",", ":", "=", "[", "]"),
        *("AKIA", "IOSFODNN7EXAMPLE", "wJal", "rXUt", "a1b2", "7", "x", "--secret-key "),
        *("6b3d2f10-1c2d-4e5f-8a9b-0c1d2e3f4a5b", "2026-03-02T10:15:00Z", "\u202e", "\0", "…"),
    ]
)  # fmt: skip
ANY_TEXT = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=30).map("".join))


@given(ANY_TEXT)
@example("password=\\")
@example("secret=[redacted]x")
def test_scrubbing_twice_is_scrubbing_once(text: str) -> None:
    once = scrub(text)
    assert scrub(once) == once


ADVERSARIES = [
    "a1", "A K ", "://a:", "password=", "%41", "\\u0041", "-----BEGIN A-----", "eyJ", "aA1-", "wj ",
    "authorization: ", "Bearer a1b2c3d4 ", "secret secret", "\\", "a_", " ", '"', "--secret-key",
    "- ", "--", "A", "Ab1 ", "0x1 ", "1 2 3 4 ", "[1 ", "akia", "a-k-i-a-", "&#65;", "0000-", "=",
    "6b3d2f10-1c2d-4e5f-8a9b-0c1d2e3f4a5b", "2026-03-02T", "password=\"\\", "token='", "%2541",
    "\u200b", "\uff21", "--token a ", "AWS A1A1A1A1:", "://" + "a" * 250 + ":", "pass", "x:=> ",
]  # fmt: skip


@pytest.mark.parametrize("unit", ADVERSARIES)
def test_no_text_takes_long(unit: str) -> None:
    # Twice the text may take twice the time, not four times; and a text of any length takes no more
    # than one of READ_LIMIT. The limits are 20 times what an idle machine takes.
    text = (unit * READ_LIMIT)[: READ_LIMIT - 1]
    started = time.process_time()
    scrub(text)
    assert time.process_time() - started < 1.0
    huge = unit * (2**20 // len(unit))
    started = time.process_time()
    shown_message(huge)
    shown_name(huge)
    assert time.process_time() - started < 1.5


@given(st.text(max_size=2000))
@example("\x1b[2J\u202e\ud800\U000e0041\u3164")
def test_what_is_shown_is_one_printable_line_of_bounded_size(text: str) -> None:
    name, message = shown_name(text), shown_message(text)
    assert len(name) <= NAME_LIMIT
    assert len(message.encode()) <= MESSAGE_LIMIT_BYTES
    for shown in (name, message):
        assert shown.isprintable()
        assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Zl", "Zp", "Cs"}


def test_what_can_not_be_seen_is_written_as_an_escape() -> None:
    assert shown_name("go\x1b[31mld\u202e\n\u3164") == r"go\x1b[31mld\u202e\n\u3164"
    assert shown_message("two\nlines\tand \x07") == r"two lines and \x07"
    assert escaped("a\nb\r", keep="\n") == "a\nb\\r"
    assert shown_name("gold-2024 ärzte 東京") == "gold-2024 ärzte 東京"


def test_a_long_name_and_a_long_message_say_that_they_are_cut() -> None:
    assert shown_name("x" * 253) == "x" * 253
    assert shown_name("x" * 300) == "x" * 255 + "…"
    assert cut_bytes("é" * 600, 1024) == "é" * 510 + "…"


# --- secrets that this process has seen

ANY_SECRET = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, categories=["L", "N"]),
    min_size=16,
    max_size=64,
)


@given(ANY_SECRET)
def test_a_known_secret_is_blanked_in_every_spelling(secret: str) -> None:
    known = KnownSecrets()
    known.learn("account", [secret])
    for name, spelling in encodings(secret):
        if "Go prints" in name or "Byte" in name:
            continue  # by its shape
        text = f"the driver says {spelling} and more"
        shown = known.blank(text)
        assert not leaks(shown, secret), (name, shown)
        assert shown.startswith("the driver says "), (name, shown)
        assert shown.endswith("and more"), (name, shown)


def test_a_known_secret_is_found_within_base64_of_a_pair() -> None:
    known = KnownSecrets()
    known.learn("account", ["correct-horse-battery-staple"])
    for user in ("u", "us", "use"):
        pair = base64.b64encode(f"{user}:correct-horse-battery-staple!".encode()).decode()
        shown = known.blank(f"Basic {pair} refused")
        assert "[redacted]" in shown, shown


def test_a_forgotten_secret_is_an_ordinary_word() -> None:
    known = KnownSecrets()
    known.learn("account", ["correct-horse-battery"])
    assert known.blank("CORRECT horse battery!") == "[redacted]!"
    known.forget("account")
    assert known.blank("CORRECT horse battery!") == "CORRECT horse battery!"
    known.forget("account")


def test_a_short_value_is_not_learned_and_an_unknown_text_stays() -> None:
    known = KnownSecrets()
    known.learn("account", ["admin", "correct-horse-battery"])
    text = "admin: the horse is correct, the battery is not"
    assert known.blank(text) == text


def test_it_holds_no_secret_and_no_more_than_its_limit() -> None:
    known = KnownSecrets()
    values = [secrets.token_hex(20) for _ in range(1500)]
    for i, value in enumerate(values):
        known.learn(f"account-{i}", [value])
    assert known.blank(values[0]) == values[0]
    assert known.blank(values[-1]) == "[redacted]"
    assert len(known) == 1024
    assert not any(value[:12] in repr(vars(known)) for value in values[-50:])


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        pytest.param("abc", 3, "abc", id="text within the limit -> unchanged"),
        pytest.param("abcdefgh", 6, "abc…", id="longer text -> ends in an ellipsis"),
        pytest.param("aäöü", 6, "aä…", id="limit within a character -> the character is dropped"),
        pytest.param("\ud800", 3, "?", id="lone surrogate -> question mark"),
    ],
)
def test_cut_bytes(text: str, limit: int, expected: str) -> None:
    assert cut_bytes(text, limit) == expected
    assert len(expected.encode()) <= limit
