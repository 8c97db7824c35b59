"""A token's line of text gives the same token, or an error that has nothing of it."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mekt.errors import SettingsError
from mekt.token import LONGEST_TEXT, PREFIX, Token, check_host, read_token

laws = settings(derandomize=True, database=None, max_examples=300)
TOKEN = Token(
    federation="ward",
    device="pi-3",
    host="broker.example",
    port=8883,
    ca=bytes(range(256)),
    certificate=bytes(reversed(range(250))),
    key=b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0IGtleQ==\n-----END PRIVATE KEY-----\n",
    coordinator=b"k" * 32,
    secret=b"\x01secret secret\xff\xfe",
    made_s=1.7e9,
    expires_s=1.7e9 + 3600,
)
TEXT = TOKEN.text()


def told(text: str) -> str:
    """The error's words, which must have nothing of the text."""
    with pytest.raises(SettingsError) as caught:
        read_token(text)
    words = str(caught.value)
    body = TEXT.removeprefix(PREFIX)
    assert len(words) < 200 and not any(body[at : at + 8] in words for at in range(len(body) - 8))
    assert (caught.value.__cause__ is None and caught.value.__suppress_context__) or caught.value.__context__ is None
    return words


def test_a_line_gives_the_token_whatever_spaces_and_breaks_came_in_on_the_way() -> None:
    assert read_token(TEXT) == TOKEN and len(TEXT) < LONGEST_TEXT
    assert TEXT.isascii() and len(TEXT.splitlines()) == 1
    assert read_token(f"  {TEXT[:100]}\r\n  {TEXT[100:]}\n") == TOKEN


@laws
@given(at=st.integers(0, len(TEXT) - 1))
def test_a_token_that_was_cut_is_none(at: int) -> None:
    told(TEXT[:at])
    if at:
        told(TEXT[at:])


@laws
@given(at=st.integers(0, len(TEXT) - 1), letter=st.characters(min_codepoint=33, max_codepoint=126))
def test_a_token_with_another_letter_is_none(at: int, letter: str) -> None:
    if letter != TEXT[at]:
        told(TEXT[:at] + letter + TEXT[at + 1 :])


@laws
@given(at=st.integers(0, len(TEXT) - 1), more=st.text(min_size=1, max_size=3))
def test_a_token_with_more_letters_is_none(at: int, more: str) -> None:
    if "".join(more.split()):
        told(TEXT[:at] + more + TEXT[at:])


def test_every_letter_counts_the_last_one_too() -> None:
    """Base64 has several spellings of its last byte."""
    for at in range(len(TEXT)):
        told(TEXT[:at] + ("B" if TEXT[at] == "A" else "A") + TEXT[at + 1 :])


@laws
@given(text=st.text(max_size=200))
def test_any_text_is_a_token_or_the_one_error(text: str) -> None:
    told(text)
    told(PREFIX + text)


def test_what_another_mekt_made_is_refused_even_where_its_sum_is_right() -> None:
    import hashlib

    for raw in (b"", b"\x80", b"\x81\xa1a\x01", b"\xc1", bytes(40)):
        line = PREFIX + base64.urlsafe_b64encode(raw + hashlib.sha256(raw).digest()[:4]).decode()
        assert "another Mekt made it" in told(line)


def test_a_token_far_too_long_is_none() -> None:
    told(PREFIX + "A" * 10_000_000)


def test_a_token_shows_no_secret_where_python_shows_it() -> None:
    assert "secret" not in repr(TOKEN)


@pytest.mark.parametrize("host", ["broker.example", "192.0.2.7", "2001:db8::1", "fe80::1%eth0", "a", "localhost"])
def test_names_and_addresses_are_hosts(host: str) -> None:
    check_host(host)


@pytest.mark.parametrize("host", ["", " ", 'a"', "a\nb", "-v", "\x1b[2J", "h\u00f6st"])
def test_anything_else_is_none(host: str) -> None:
    with pytest.raises(SettingsError, match="is no host"):
        check_host(host)
