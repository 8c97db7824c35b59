"""The tree of errors: its drawing, its exit codes."""

import re

import pytest

from mekt import errors
from mekt.errors import MektError

FAMILIES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MektError)]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn = re.findall(r"^ +[|`\- ]*(\w+Error) +(\d+)", errors.__doc__ or "", re.MULTILINE)
    assert drawn == [(each.__name__, str(each.exit_code)) for each in FAMILIES]


def test_exit_codes_are_unique_and_free_of_meanings_of_the_shell() -> None:
    codes = [each.exit_code for each in FAMILIES]
    assert len(set(codes)) == len(codes)
    assert all(1 <= code < 64 for code in codes)


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_every_family_stands_directly_below_the_root(family: type[MektError]) -> None:
    assert family.__bases__ == (MektError,)
    assert family.__doc__


def test_an_error_shows_the_text_it_was_made_with() -> None:
    assert [str(family("device.toml: x")) for family in FAMILIES] == ["device.toml: x"] * len(FAMILIES)
