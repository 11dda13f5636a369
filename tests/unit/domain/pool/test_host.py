"""Hosts: the states that their links imply, their start curves, and the fields operators write."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import errors
from orchestrator.domain.pool import host, host_facts, host_fields
from orchestrator.domain.pool.host import Drain, HostState, StartCurve, Wish
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.domain.pool.host_liveness import LOST_AFTER, LinkState, assess
from tests.fakes import samples
from tests.fakes.fleet import df_and_meminfo
from tests.fakes.samples import NOW, later

LOST_AFTER_S = LOST_AFTER.total_seconds()
ANSWERING = LinkState(up=True, since=later(-100))


def not_answering(since_s: float = 0.0) -> LinkState:
    return LinkState(up=False, since=later(since_s), reason="no route to host")


def assessed(link: LinkState, after_s: float = 0.0, **fields: Any) -> host.Host:
    return assess(samples.host(**fields), link, later(after_s))


# States


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (HostState.JOINING, HostState.JOINING),
        (HostState.UP, HostState.UP),
        (HostState.SUSPECT, HostState.SUSPECT),
        (HostState.LOST, HostState.JOINING),
    ],
)
def test_a_host_that_only_answers_is_not_up_yet(before: HostState, after: HostState) -> None:
    assert assessed(ANSWERING, state=before).state is after


@pytest.mark.parametrize("state", [HostState.JOINING, HostState.UP])
def test_a_host_that_does_not_answer_is_suspect_at_once(state: HostState) -> None:
    after = assessed(not_answering(), state=state)
    assert (after.state, after.reason) == (HostState.SUSPECT, "no route to host")
    assert after.state_since == NOW


@pytest.mark.parametrize(("after_s", "state"), [(14.9, HostState.SUSPECT), (15, HostState.LOST)])
def test_a_host_is_lost_when_it_has_not_answered_for_15_seconds(
    after_s: float, state: HostState
) -> None:
    after = assessed(not_answering(), after_s, state=HostState.SUSPECT, state_since=NOW)
    assert after.state is state


def test_the_15_seconds_begin_with_the_later_of_link_and_suspicion() -> None:
    """After our own restart the link is new. After a failed start the suspicion is."""
    new_link = assessed(not_answering(), 1, state=HostState.SUSPECT, state_since=later(-3600))
    assert new_link.state is HostState.SUSPECT, "our own restart is not its fault"
    newly_suspect = assessed(not_answering(-3600), 1, state=HostState.SUSPECT, state_since=NOW)
    assert newly_suspect.state is HostState.SUSPECT


def test_a_lost_host_stays_lost_and_its_reason_is_kept_current() -> None:
    after = assessed(not_answering(), 99, state=HostState.LOST, state_since=later(-5), reason="old")
    assert (after.state, after.state_since) == (HostState.LOST, later(-5))
    assert after.reason == "no route to host"


@pytest.mark.parametrize("link", [ANSWERING, not_answering(-99)])
@pytest.mark.parametrize("state", HostState)
def test_a_host_that_leaves_is_not_assessed_any_more(state: HostState, link: LinkState) -> None:
    leaving = samples.host(state=state, drain=Drain.LEAVE)
    assert assess(leaving, link, NOW) == leaving


@given(st.sampled_from(HostState), st.booleans(), st.floats(-60, 60), st.floats(-60, 60))
def test_an_assessment_is_always_legal_and_repeating_it_changes_nothing(
    state: HostState, up: bool, since_s: float, link_s: float
) -> None:
    link = LinkState(up=up, since=later(link_s), reason="" if up else "no answer")
    after = assessed(link, 60, state=state, state_since=later(since_s))
    assert assess(after, link, later(60)) == after
    assert after.state is not HostState.UP or state is HostState.UP


# Start curves


def test_a_number_of_starts_that_was_not_measured_comes_first() -> None:
    assert StartCurve().at_once == 3
    assert StartCurve(seconds=(1.0, 9.0, None)).at_once == 3
    assert StartCurve(seconds=(1.0, None, 9.0)).at_once == 2


@pytest.mark.parametrize(
    ("seconds", "at_once"),
    [((1.0, 1.0, 1.0), 3), ((1.0, 2.5, 4.0), 1), ((1.0, 1.5, 4.0), 2), ((1.0, 1.9, 2.8), 3)],
)
def test_as_many_starts_at_once_as_complete_the_most_per_second(
    seconds: tuple[float, ...], at_once: int
) -> None:
    assert StartCurve(seconds=seconds).at_once == at_once


def test_a_start_moves_the_average_of_its_own_number_by_a_fifth() -> None:
    curve = StartCurve().with_start(2, 1.0)
    assert curve.seconds == (None, 1.0, None)
    curve = curve.with_start(2, 2.0)
    assert curve.seconds == (None, 1.2, None)
    assert curve.with_start(9, 5.0).seconds == (None, 1.2, 5.0), "more than three counts as three"
    assert curve.with_start(0, 5.0).seconds == (5.0, 1.2, None)


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0.01, 60)), max_size=30))
def test_a_curve_stays_within_what_was_measured(starts: list[tuple[int, float]]) -> None:
    curve = StartCurve()
    for at_once, took_s in starts:
        curve = curve.with_start(at_once, took_s)
    for number, average in enumerate(curve.seconds, start=1):
        times = [took_s for at_once, took_s in starts if at_once == number]
        assert (average is None) == (not times)
        if average is not None:
            assert min(times) - 0.001 <= average <= max(times) + 0.001


# Addresses, names, labels


@pytest.mark.parametrize(
    ("text", "user", "name", "port"),
    [
        ("ssh://root@10.0.0.5", "root", "10.0.0.5", 22),
        ("ssh://spawn_1@vps.example.org:2222", "spawn_1", "vps.example.org", 2222),
        ("ssh://root@[2001:db8::1]:22/", "root", "2001:db8::1", 22),
    ],
)
def test_an_address_is_parsed_and_printed_alike(text: str, user: str, name: str, port: int) -> None:
    address = host_fields.parse_address(text)
    assert address == HostAddress(user=user, host=name, port=port)
    assert host_fields.parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not an address like ssh://"),
        ("10.0.0.5", "is not an address like ssh://"),
        ("http://root@10.0.0.5", "is not an address like ssh://"),
        ("ssh://10.0.0.5", "name the user to log in as"),
        ("ssh://ro ot@10.0.0.5", "name the user to log in as"),
        ("ssh://-oProxyCommand=x@10.0.0.5", "name the user to log in as"),
        ("ssh://root@", "is not an address like ssh://"),
        ("ssh://root@10.0.0.5:notaport", "is not an address like ssh://"),
        ("ssh://root@10.0.0.5:99999", "is not an address like ssh://"),
        ("ssh://root@10.0.0.5/var", "is not an address like ssh://"),
        ("ssh://root@10.0.0.5?x=1", "is not an address like ssh://"),
        ("ssh://root@10.0.0.5#x", "is not an address like ssh://"),
        ("ssh://root@10.0.0.5:0", "is not an address like ssh://"),
        ("ssh://root@a b", "is not an address like ssh://"),
        ("ssh://root@-a", "is not an address like ssh://"),
        ("ssh://root@[10.0.0.5", "is not an address like ssh://"),
        ("ssh://root@[::1]x", "is not an address like ssh://"),
        ("ssh://root@10.0.0.5\n", "printable characters"),
        ("ssh://root:secret@10.0.0.5", "leave the password out"),
        ("ssh://root:secret@10.0.0.5:notaport", "is not an address like ssh://"),
        ("tcp://root:secret@10.0.0.5", "is not an address like ssh://"),
        ("unix:///var/run/docker.sock", "is not an address like ssh://"),
    ],
)
def test_a_text_that_is_no_address_is_refused_with_what_is_missing(text: str, message: str) -> None:
    with pytest.raises(errors.InvalidInput, match=message) as caught:
        host_fields.parse_address(text)
    assert caught.value.detail["field"] == "address"
    assert "secret" not in str(caught.value)


def test_this_machines_engine_has_no_address() -> None:
    local, remote = samples.host(), samples.host(docker_url="ssh://root@10.0.0.5")
    assert (local.is_remote, remote.is_remote) == (False, True)
    assert remote.address.host == "10.0.0.5"
    with pytest.raises(errors.InvalidInput):
        _ = local.address


@pytest.mark.parametrize("name", ["a", "paris-1", "x" * 32, "0"])
def test_a_plain_word_names_a_host(name: str) -> None:
    assert host_fields.checked_name(name) == name


@pytest.mark.parametrize("name", ["", "Paris", "-a", "a-", "a_b", "a b", "x" * 33, "a\n", "../a"])
def test_a_name_that_could_not_stand_in_a_path_is_refused(name: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        host_fields.checked_name(name)
    assert caught.value.detail["field"] == "name"


@pytest.mark.parametrize(
    "text", ["", "0.0.0.0", "0.1.2.3", "224.0.0.1", "010.0.0.1", "::1", "vps.example.org", "10.0.0"]
)
def test_apps_are_published_on_one_ipv4_address(text: str) -> None:
    assert host_fields.checked_publish_address("10.0.0.7") == "10.0.0.7"
    with pytest.raises(errors.InvalidInput) as caught:
        host_fields.checked_publish_address(text)
    assert caught.value.detail["field"] == "publish_address"


def test_labels_come_out_sorted_and_a_value_may_be_empty() -> None:
    assert list(host_fields.checked_labels({"zone": "b", "gpu": ""}).items()) == [
        ("gpu", ""),
        ("zone", "b"),
    ]


@pytest.mark.parametrize(
    "labels", [{"": "x"}, {"a b": "x"}, {"a": "b\n"}, {"a": "x" * 64}, {"k" * 64: ""}, {"a": "-b"}]
)
def test_labels_that_are_not_plain_words_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        host_fields.checked_labels(labels)
    assert caught.value.detail["field"] == "labels"


def test_only_the_empty_wish_requires_nothing() -> None:
    assert not Wish()
    assert Wish(region="eu")
    assert Wish(labels={"gpu": "yes"})


# Figures


def test_free_disk_and_memory_are_parsed_from_the_output_of_a_host() -> None:
    output = df_and_meminfo(disk_bytes=7 * 1024**3, memory_bytes=512 * 1024**2)
    assert host_facts.free_disk_bytes(output) == 7 * 1024**3
    assert host_facts.free_memory_bytes(output) == 512 * 1024**2


@pytest.mark.parametrize(
    "output", ["", "df: /nowhere: No such file or directory\n", "MemTotal: 5 kB"]
)
def test_output_without_figures_gives_none(output: str) -> None:
    assert host_facts.free_disk_bytes(output) is None
    assert host_facts.free_memory_bytes(output) is None


def test_a_file_system_with_a_blank_in_its_name_is_read_too() -> None:
    output = (
        "Filesystem 1024-blocks Used Available Capacity Mounted on\n//nas/my disk 9 2 7 23% /a b\n"
    )
    assert host_facts.free_disk_bytes(output) == 7 * 1024
