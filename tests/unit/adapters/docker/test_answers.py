"""What an engine answers is a bounded value, or one error that names what is odd."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.docker import answers
from orchestrator.domain import errors

SANDBOX = "sbx_" + "a" * 26
LABELS = {"ai.spawn.sandbox": SANDBOX}
CONTAINER: dict[str, Any] = {"Id": "c1", "Labels": LABELS, "State": "exited", "Status": "Exited"}
INFO: dict[str, Any] = {
    "ServerVersion": "27",
    "Driver": "overlay2",
    "DockerRootDir": "/d",
    "MemTotal": 1,
    "NCPU": 1,
}


def event(action: object = "die", **attributes: object) -> dict[str, Any]:
    return {"Action": action, "Actor": {"ID": "c1", "Attributes": {**LABELS, **attributes}}}


def refusal(parse: Any, answer: object) -> str:
    with pytest.raises(errors.EngineUnavailable) as caught:
        parse(answer)
    assert caught.value.code == "docker_answers_oddly"
    assert len(str(caught.value)) < 300
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "an event isn't JSON"),
        ("[" * 100_000, "an event isn't JSON"),
        ("[]", "an event is no object"),
        ('{"Actor": {}}', "an event's Attributes is no object"),
        (json.dumps(event(action=5)), "Action is no text"),
        (json.dumps(event(action="x" * 4097)), "Action is no text"),
    ],
    ids=range(6),
)
def test_an_event_that_is_none_is_refused(line: str, says: str) -> None:
    assert says in refusal(answers.parse_event, line)


@pytest.mark.parametrize("label", ["sbx_a", "../" + "a" * 27, 5, None])
def test_an_event_without_the_id_of_a_sandbox_concerns_none(label: object) -> None:
    assert answers.parse_event(json.dumps(event(**{"ai.spawn.sandbox": label}))) is None


@pytest.mark.parametrize(
    ("action", "exit_code", "note"),
    [
        ("die", "137", "exit code 137"),
        ("die", "9" * 5000, "exit code 9999999999"),
        ("start", "0", ""),
        ("create", "0", "created"),
    ],
)
def test_an_event_says_how_the_container_is_after_it(
    action: str, exit_code: str, note: str
) -> None:
    parsed = answers.parse_event(json.dumps(event(action, exitCode=exit_code)))

    assert parsed is not None
    assert (parsed.container.running, parsed.container.exited) == (
        action == "start",
        action == "die",
    )
    assert parsed.container.exit_note == note


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "its list of containers is no list"),
        ([CONTAINER] * 10_001, "more than 10000 containers"),
        ([CONTAINER, 5], "a container is no object"),
        ([{**CONTAINER, "Id": "x" * 4097}], "Id is no text"),
    ],
    ids=range(4),
)
def test_a_list_beyond_a_bound_is_refused(answer: object, says: str) -> None:
    assert says in refusal(answers.parse_containers, answer)


def test_of_a_list_the_sandboxes_are_read_with_a_short_note() -> None:
    containers = answers.parse_containers(
        [
            {**CONTAINER, "Status": "x" * 4096},
            {**CONTAINER, "State": "dead"},
            {**CONTAINER, "State": "running"},
            {**CONTAINER, "Labels": {"ai.spawn.sandbox": "other"}},
        ]
    )

    assert [(one.running, one.exited, len(one.exit_note)) for one in containers] == [
        (False, True, 200),
        (False, True, 6),
        (True, False, 0),
    ]


@given(
    items=st.lists(
        st.recursive(
            st.none() | st.integers() | st.text() | st.booleans(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        )
    ),
    indent=st.sampled_from((None, 0, 3)),
    is_ascii=st.booleans(),
)
def test_a_list_read_item_by_item_is_the_whole_list(
    items: list[object], indent: int | None, is_ascii: bool
) -> None:
    body = json.dumps(items, indent=indent, ensure_ascii=is_ascii).encode()
    assert list(answers.list_items(b" " + body + b"\n", "a list")) == items


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[",
        b"[1",
        b"[1,",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1]]",
        b"[1] x",
        b"[\xff]",
        b"[" * 100_000,
        b'["' + b"x" * 65_536 + b'"]',
    ],
    ids=range(13),
)
def test_what_is_no_list_is_refused(body: bytes) -> None:
    says = refusal(lambda answer: list(answers.list_items(answer, "a list")), body)
    assert "a list is no list in JSON" in says


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"NCPU": None}, "NCPU is no number"),
        ({"NCPU": "many"}, "NCPU is no number"),
        ({"NCPU": float("inf")}, "NCPU is no number"),
        ({"NCPU": "9" * 5000}, "NCPU is no number"),
        ({"NCPU": 10**30}, "NCPU is no number from 1 to 10000"),
        ({"NCPU": 0}, "NCPU is no number from 1"),
        ({"NCPU": -3}, "NCPU is no number from 1"),
        ({"NCPU": 0.01}, "NCPU is no number from 1"),
        ({"MemTotal": 2**63}, "MemTotal is no number from 1"),
        ({"CgroupVersion": "3000000000"}, "CgroupVersion is no number from 1 to 2"),
        ({"Driver": "x" * 4097}, "Driver is no text"),
        ({"SecurityOptions": "name=seccomp"}, "SecurityOptions is no list"),
    ],
)
def test_a_description_beyond_a_bound_is_refused(changes: dict[str, Any], says: str) -> None:
    assert says in refusal(answers.parse_info, {**INFO, **changes})
    assert "MemTotal is no number" in refusal(
        answers.parse_info, {k: v for k, v in INFO.items() if k != "MemTotal"}
    )


def test_security_options_may_be_missing_and_are_cut() -> None:
    assert answers.parse_info({**INFO, "SecurityOptions": None}).security_options == ()
    facts = answers.parse_info({**INFO, "SecurityOptions": ["x" * 900, 5], "CgroupVersion": "2"})
    assert [len(option) for option in facts.security_options] == [200, 1]
    assert (facts.cgroup_version, answers.parse_info(INFO).cgroup_version) == (2, 1)
