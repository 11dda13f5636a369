"""Ids as people type them: whole, or their first characters."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.domain import ids
from orchestrator.entrypoints.cli import arguments
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

ONE = "ses_abcdefgh" + "2" * 18
TWO = "ses_abcdefzz" + "3" * 18


def resolve(text: str, all_ids: Sequence[str] = (ONE, TWO)) -> str:
    return arguments.resolve_id(text, "ses", lambda: all_ids, "spawnctl sessions list")


def test_a_prefix_of_one_session_is_its_id() -> None:
    assert resolve("ses_abcdefg") == ONE


def test_capitals_and_blanks_of_a_copied_id_do_no_harm() -> None:
    assert resolve(" SES_ABCDEFZZ ") == TWO


def test_a_whole_id_needs_no_list() -> None:
    session_id = ids.new_session_id()

    def list_ids() -> list[str]:
        raise AssertionError("asked for a list that isn't needed")

    assert arguments.resolve_id(session_id, "ses", list_ids, "spawnctl sessions list") == session_id


def test_a_prefix_of_two_sessions_is_refused_and_names_both() -> None:
    with pytest.raises(Problem) as caught:
        resolve("ses_abcdef")
    assert (caught.value.exit_code, caught.value.code) == (Exit.USAGE, "id_ambiguous")
    assert ONE in caught.value.message
    assert TWO in caught.value.message


def test_a_prefix_of_nothing_is_not_found() -> None:
    with pytest.raises(Problem) as caught:
        resolve("ses_zzzzzz")
    assert (caught.value.exit_code, caught.value.code) == (Exit.NOT_FOUND, "id_unknown")


@pytest.mark.parametrize(
    "text",
    ["", "ses_", "ses_abcde", "abcdefgh", "key_abcdefgh", "ses_abc1efgh", ONE + "2", "../.."],
)
def test_what_cannot_be_the_beginning_of_an_id_is_a_usage_error(text: str) -> None:
    with pytest.raises(Problem) as caught:
        resolve(text)
    assert (caught.value.exit_code, caught.value.code) == (Exit.USAGE, "bad_id")
