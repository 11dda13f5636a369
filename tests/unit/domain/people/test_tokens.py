"""Tokens: those that we made can be read, and no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import errors, ids
from orchestrator.domain.people.tokens import SessionGrant, Tokens

OURS = Tokens(b"a" * 32)
SANDBOX = ids.new_sandbox_id()
USER = ids.new_user_id()
GRANT = SessionGrant(session_id=ids.new_session_id(), attempt=2, sandbox_id=SANDBOX)
ALL = [OURS.for_sandbox(SANDBOX), OURS.for_session(GRANT), OURS.for_visitor(USER)]
READERS = [OURS.read_sandbox, OURS.read_session, OURS.read_visitor]


def test_what_was_made_is_read_back() -> None:
    assert OURS.read_sandbox(ALL[0]) == SANDBOX
    assert OURS.read_session(ALL[1]) == GRANT
    assert OURS.read_visitor(ALL[2]) == USER


def test_the_same_thing_has_the_same_token() -> None:
    assert OURS.for_session(GRANT) == ALL[1]


@pytest.mark.parametrize("kind", range(3))
def test_a_token_of_one_kind_is_no_token_of_another(kind: int) -> None:
    for other in {0, 1, 2} - {kind}:
        with pytest.raises(errors.Unauthorized):
            READERS[kind](ALL[other])


def test_a_token_under_the_name_of_another_kind_is_refused() -> None:
    for name, read in (("sbt", OURS.read_sandbox), ("vst", OURS.read_visitor)):
        for token in (OURS.for_visitor(USER), OURS.for_sandbox(SANDBOX)):
            kind, rest = token.split(".", 1)
            if kind != name:
                with pytest.raises(errors.Unauthorized, match="is not valid"):
                    read(f"{name}.{rest}")


@pytest.mark.parametrize("kind", range(3))
def test_a_token_of_another_installation_is_refused(kind: int) -> None:
    theirs = Tokens(b"b" * 32)
    readers = [theirs.read_sandbox, theirs.read_session, theirs.read_visitor]
    with pytest.raises(errors.Unauthorized):
        readers[kind](ALL[kind])


@pytest.mark.parametrize("kind", range(3))
def test_a_token_with_any_character_changed_is_refused(kind: int) -> None:
    token = ALL[kind]
    for at, was in enumerate(token):
        other = "x" if was != "x" else "y"
        with pytest.raises(errors.Unauthorized):
            READERS[kind](token[:at] + other + token[at + 1 :])


@given(st.text(max_size=80))
def test_what_nobody_made_is_refused(text: str) -> None:
    for read in READERS:
        for token in (text, f"sbt.{text}", f"set.{text}.1.{text}.{text}", f"vst.{text}.{text}"):
            with pytest.raises(errors.Unauthorized):
                read(token)


def test_the_parts_of_a_token_cannot_be_exchanged() -> None:
    _, session_id, attempt, sandbox_id, mac = ALL[1].split(".")
    for parts in (
        (session_id, "3", sandbox_id, mac),
        (sandbox_id, attempt, session_id, mac),
        (session_id, attempt, ids.new_sandbox_id(), mac),
        (session_id, attempt, sandbox_id, ""),
        (session_id, attempt, sandbox_id, mac, mac),
    ):
        with pytest.raises(errors.Unauthorized):
            OURS.read_session(".".join(("set", *parts)))


def test_a_visitor_is_named_by_a_user_id_alone() -> None:
    forged = OURS.for_visitor(ids.UserId("ses_" + "a" * 26))
    with pytest.raises(errors.Unauthorized, match="names no visitor"):
        OURS.read_visitor(forged)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens(b"a" * 31)
