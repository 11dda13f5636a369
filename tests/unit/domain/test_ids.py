"""Identifiers: their form tells what they name, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.domain import ids

MAKERS: list[tuple[Callable[[], str], str]] = [
    (ids.new_session_id, "ses"),
    (ids.new_sandbox_id, "sbx"),
    (ids.new_host_id, "hst"),
    (ids.new_user_id, "usr"),
    (ids.new_key_id, "key"),
]


@pytest.mark.parametrize(("make", "prefix"), MAKERS)
def test_an_id_has_its_prefix_and_26_characters(make: Callable[[], str], prefix: str) -> None:
    identifier = make()
    assert ids.is_id(identifier, prefix)
    assert len(identifier) == 30
    assert not any(ids.is_id(identifier, other) for _, other in MAKERS if other != prefix)


@pytest.mark.parametrize("make", [*(make for make, _ in MAKERS), ids.new_slug])
def test_no_two_ids_are_the_same(make: Callable[[], str]) -> None:
    assert len({make() for _ in range(200)}) == 200


def test_a_slug_is_16_characters_that_are_valid_in_a_host_name() -> None:
    for _ in range(50):
        assert ids.SLUG_PATTERN.fullmatch(ids.new_slug())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ses_",
        "ses_" + "a" * 25,
        "ses_" + "a" * 27,
        "ses_" + "A" * 26,
        "ses_" + "1" * 26,
        "ses-" + "a" * 26,
        "sbx_" + "a" * 26,
        "ses_" + "a" * 26 + "\n",
        " ses_" + "a" * 26,
        "ses_" + "é" * 26,
        "../../etc/passwd",
    ],
)
def test_a_text_of_another_form_is_no_id(text: str) -> None:
    assert not ids.is_id(text, "ses")
