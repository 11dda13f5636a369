"""What the control plane and an agent send each other: both sides read the same value."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contract import wire
from orchestrator.contract.uploads import UPLOAD_MAX_BYTES
from orchestrator.contract.wire import Kind, Outcome, ProtocolError, Report
from orchestrator.contract.wire.fields import Fields

Parser = Callable[[object], object]

text = st.text(min_size=1, max_size=30)
count = st.integers(0, 2**31 - 1)
positive = st.integers(1, 2**31 - 1)
seconds = st.floats(0.5, 10**6)
slug = st.text("abcdefgh0123456789-", min_size=1, max_size=30)

IDENTITIES = st.builds(
    wire.Identity, sandbox_id=text, token=text, slug=slug, interpreters=st.booleans()
)
BUNDLES = st.builds(
    wire.BundleRef,
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    size_bytes=count,
    packed=st.none() | st.binary(min_size=1, max_size=100),
)
MESSAGES = st.builds(wire.Message, role=st.sampled_from(wire.Role), text=text)
LIMITS = st.builds(
    wire.Limits,
    turns=positive,
    output_tokens=positive,
    seconds=seconds,
    repairs=positive,
    files=positive,
    file_bytes=positive,
    total_bytes=positive,
    run_seconds=seconds,
    silence_seconds=seconds,
)
COMMON = {
    "id": text,
    "session_id": text,
    "session_token": text,
    "slug": slug,
    "max_tokens": count,
    "start_timeout_s": seconds,
    "upload_max_bytes": positive,
    "model": st.none() | text,
}
REQUEST = {"expected_output_tokens": st.none() | count, "limits": LIMITS}
ASSIGNMENTS = st.one_of(
    st.builds(wire.Assignment, kind=st.just(Kind.BUNDLE), bundle=BUNDLES, **COMMON),
    st.builds(
        wire.Assignment,
        kind=st.just(Kind.GENERATE),
        bundle=st.none() | BUNDLES,
        prompt=text,
        **COMMON,
        **REQUEST,
    ),
    st.builds(
        wire.Assignment,
        kind=st.just(Kind.CHANGE),
        bundle=BUNDLES,
        prompt=st.none() | text,
        message=text,
        conversation=st.lists(MESSAGES, max_size=4).map(tuple),
        **COMMON,
        **REQUEST,
    ),
)
FAILURES = st.builds(
    wire.Failure,
    code=st.from_regex(r"[a-z_]{1,40}", fullmatch=True) | st.sampled_from(wire.FailureCode),
    message=st.text(max_size=wire.FAILURE_MAX_CHARS),
    permanent=st.booleans(),
)
REPORTS = st.builds(
    Report,
    seq=positive,
    phase=st.sampled_from(wire.Phase),
    progress=st.integers(0, 100),
    message=st.text(max_size=wire.MESSAGE_MAX_CHARS),
    logs=st.lists(st.text(max_size=50), max_size=5).map(tuple),
    failure=st.none() | FAILURES,
    summary=st.none() | st.text(max_size=wire.SUMMARY_MAX_CHARS),
    outcome=st.none() | st.builds(Outcome, failure=st.none() | FAILURES),
)


def received(value: Any, parse: Parser, **changes: object) -> object:
    """What the other side gets."""
    document = {**value.as_json(), **changes}
    return parse(wire.decode(json.dumps(document).encode(), "document"))


def refusal(document: object, parse: Parser) -> str:
    """The field that is refused."""
    with pytest.raises(ProtocolError) as caught:
        parse(document)
    assert str(caught.value).startswith(f"{caught.value.field}: ")
    return caught.value.field


@given(IDENTITIES)
def test_an_identity_arrives_as_it_was_sent(identity: wire.Identity) -> None:
    assert received(identity, wire.parse_identity, more={"to": "come"}) == identity


@given(ASSIGNMENTS)
def test_an_assignment_arrives_as_it_was_sent(assignment: wire.Assignment) -> None:
    assert received(assignment, wire.parse_assignment, more=["to come"]) == assignment


@given(REPORTS)
def test_a_report_arrives_as_it_was_sent(report: Report) -> None:
    assert received(report, wire.parse_report, more=1) == report


@given(LIMITS)
def test_limits_arrive_as_they_were_sent(limits: wire.Limits) -> None:
    assert received(limits, wire.parse_limits, colour="blue") == limits


ASSIGNMENT: dict[str, Any] = {
    "id": "a1",
    "kind": "bundle",
    "session_id": "ses_1",
    "session_token": "t",
    "slug": "ABC",
    "prompt": None,
    "model": None,
    "max_tokens": 0,
    "bundle": {"sha256": "AB", "size_bytes": 3},
    "start_timeout_s": 30,
}


def test_an_assignment_is_read_with_its_slug_and_digest_in_lower_case() -> None:
    assignment = wire.parse_inbox({"assignment": ASSIGNMENT})

    assert (assignment.kind, assignment.slug) == (Kind.BUNDLE, "abc")
    assert assignment.bundle == wire.BundleRef(sha256="ab", size_bytes=3)


@pytest.mark.parametrize("packed", ["no base64!", "YQ", "YQ==YQ==", 7, ["YQ=="], ""])
def test_a_bundle_that_is_no_base64_is_refused(packed: object) -> None:
    bundle = {"sha256": "AB", "size_bytes": 3, "packed": packed}
    with pytest.raises(wire.ProtocolError, match=r"^bundle.packed: "):
        wire.parse_assignment({**ASSIGNMENT, "bundle": bundle})


def test_what_an_assignment_leaves_out_has_a_default() -> None:
    fields = {"kind": "change", "message": "Blue.", "limits": {"turns": 5, "seconds": 60}}
    assignment = wire.parse_assignment({**ASSIGNMENT, **fields})

    assert assignment.conversation == ()
    assert assignment.limits == wire.Limits(turns=5, seconds=60.0)


def test_an_identity_is_read_with_its_slug_in_lower_case() -> None:
    identity = wire.parse_identity({"sandbox_id": "sbx_1", "token": "T", "slug": "ABC"})

    assert identity == wire.Identity(sandbox_id="sbx_1", token="T", slug="abc")


MODELS_WORK = {"expected_output_tokens", "limits"}


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"kind": "bundle"}, set()),
        ({"kind": "generate", "prompt": "Draw.", "bundle": None}, MODELS_WORK),
        ({"kind": "change", "message": "Blue."}, {*MODELS_WORK, "message", "conversation"}),
    ],
    ids=["bundle", "generate", "change"],
)
def test_an_assignment_has_the_fields_of_its_kind(change: dict[str, Any], more: set[str]) -> None:
    document = wire.parse_assignment({**ASSIGNMENT, **change}).as_json()

    assert set(document) == {*ASSIGNMENT, "upload_max_bytes", *more}


@pytest.mark.parametrize("name", ["prompt", "message", "conversation", "limits"])
def test_a_bundle_that_is_only_to_be_started_brings_nothing_for_a_model(name: str) -> None:
    document = wire.parse_assignment(ASSIGNMENT).as_json()

    assert document.get(name) is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"kind": "other"}, "kind"),
        ({"kind": None}, "kind"),
        ({"bundle": None}, "bundle"),
        ({"bundle": "abc"}, "bundle"),
        ({"bundle": {"sha256": 3, "size_bytes": 1}}, "bundle.sha256"),
        ({"bundle": {"sha256": "ab"}}, "bundle.size_bytes"),
        ({"bundle": {"sha256": "ab", "size_bytes": 1.5}}, "bundle.size_bytes"),
        ({"kind": "generate", "prompt": None}, "prompt"),
        ({"kind": "change"}, "message"),
        ({"kind": "change", "message": "Blue.", "bundle": None}, "bundle"),
        ({"conversation": "Hello"}, "conversation"),
        ({"conversation": {}}, "conversation"),
        ({"conversation": ""}, "conversation"),
        ({"conversation": [{"role": "robot", "text": "Hello"}]}, "conversation.0.role"),
        ({"conversation": [{"role": "user", "text": ""}]}, "conversation.0.text"),
        ({"conversation": ["Hello"]}, "conversation.0"),
        ({"expected_output_tokens": -1}, "expected_output_tokens"),
        ({"limits": []}, "limits"),
        ({"limits": {"turns": 0}}, "limits.turns"),
        ({"limits": {"turns": 1.5}}, "limits.turns"),
        ({"limits": {"seconds": 0}}, "limits.seconds"),
        ({"limits": {"seconds": "long"}}, "limits.seconds"),
        ({"limits": {"seconds": float("nan")}}, "limits.seconds"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": float("inf")}, "max_tokens"),
        ({"max_tokens": float("nan")}, "max_tokens"),
        ({"max_tokens": 2**53 + 1}, "max_tokens"),
        ({"max_tokens": 1e300}, "max_tokens"),
        ({"start_timeout_s": -1}, "start_timeout_s"),
        ({"start_timeout_s": True}, "start_timeout_s"),
        ({"slug": None}, "slug"),
    ],
    ids=str,
)
def test_an_assignment_that_makes_no_sense_is_refused_by_the_field(
    change: dict[str, Any], field: str
) -> None:
    assert refusal({**ASSIGNMENT, **change}, wire.parse_assignment) == field


def test_an_assignment_at_its_bounds_is_taken() -> None:
    fields = {"max_tokens": 2**53, "start_timeout_s": 0, "conversation": []}
    assignment = wire.parse_assignment({**ASSIGNMENT, **fields})

    assert (assignment.max_tokens, assignment.start_timeout_s) == (2**53, 0)
    assert assignment.upload_max_bytes == UPLOAD_MAX_BYTES


def test_a_whole_number_may_come_with_a_point_and_is_whole_afterwards() -> None:
    tokens = wire.parse_assignment({**ASSIGNMENT, "max_tokens": 5.0}).max_tokens

    assert (tokens, type(tokens)) == (5, int)


def test_limits_alone_are_refused_by_the_same_field() -> None:
    assert refusal({"turns": "many"}, wire.parse_limits) == "limits.turns"
    assert refusal([], wire.parse_limits) == "limits"


@pytest.mark.parametrize("document", [None, [], "x", {}, {"assignment": None}])
def test_an_inbox_without_an_assignment_is_refused(document: object) -> None:
    assert refusal(document, wire.parse_inbox) in {"answer", "assignment"}


REPORT: dict[str, Any] = {"seq": 1, "phase": "ready", "progress": 100, "logs": []}
FAILURE: dict[str, Any] = {"code": "refused", "message": "No."}


def test_a_report_needs_little() -> None:
    report = wire.parse_report(REPORT)

    assert report == Report(seq=1, phase=wire.Phase.READY, progress=100, message="")


def test_a_change_that_succeeded_says_so() -> None:
    assert Outcome().as_json() == {"ok": True}


def test_a_failure_may_have_no_words() -> None:
    report = wire.parse_report({**REPORT, "error": {"code": "refused", "message": ""}})

    assert report.failure == wire.Failure(code="refused", message="")


def test_what_may_pass_is_temporary() -> None:
    temporary = {wire.FailureCode.BUNDLE_FETCH_FAILED, wire.FailureCode.PROVIDER_UNAVAILABLE}
    assert temporary == wire.TEMPORARY


def test_a_failed_change_without_details_is_a_generation_that_failed() -> None:
    report = wire.parse_report({**REPORT, "change": {"ok": False}})

    assert report.outcome == Outcome(failure=wire.Failure(code="generation_failed", message=""))


def test_a_code_of_a_newer_agent_is_taken() -> None:
    report = wire.parse_report({**REPORT, "error": {**FAILURE, "code": "too_fancy"}})

    assert report.failure == wire.Failure(code="too_fancy", message="No.")


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 2**31 - 1},
        {"progress": 0},
        {"message": "x" * 200},
        {"logs": ["x" * 4000] * 500},
        {"summary": "x" * 4000},
        {"error": {"code": "x" * 40, "message": "x" * 4000, "permanent": False}},
        {"change": {"ok": False, "code": "x_y", "message": "x" * 4000}},
        {"change": {"ok": True, "code": 5}},
        {"error": None, "summary": None, "change": None, "message": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_report_at_its_bounds_is_taken(change: dict[str, Any]) -> None:
    wire.parse_report({**REPORT, **change})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seq": 0}, "seq"),
        ({"seq": 2**31}, "seq"),
        ({"seq": 1.5}, "seq"),
        ({"seq": None}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": 10**400}, "seq"),
        ({"phase": "dancing"}, "phase"),
        ({"phase": ["ready"]}, "phase"),
        ({"progress": -1}, "progress"),
        ({"progress": 101}, "progress"),
        ({"message": "x" * 201}, "message"),
        ({"message": 5}, "message"),
        ({"message": "\ud83d"}, "message"),
        ({"logs": None}, "logs"),
        ({"logs": "line"}, "logs"),
        ({"logs": [7]}, "logs"),
        ({"logs": ["x"] * 501}, "logs"),
        ({"logs": ["x", "x" * 4001]}, "logs.1"),
        ({"logs": ["\udc00"]}, "logs.0"),
        ({"summary": "x" * 4001}, "summary"),
        ({"error": "x"}, "error"),
        ({"error": {}}, "error.code"),
        ({"error": {"code": "refused"}}, "error.message"),
        ({"error": {**FAILURE, "code": "Refused"}}, "error.code"),
        ({"error": {**FAILURE, "code": "x\n"}}, "error.code"),
        ({"error": {**FAILURE, "code": "x" * 41}}, "error.code"),
        ({"error": {**FAILURE, "message": "x" * 4001}}, "error.message"),
        ({"error": {**FAILURE, "permanent": "yes"}}, "error.permanent"),
        ({"change": {}}, "change.ok"),
        ({"change": {"ok": False, "code": ""}}, "change.code"),
        ({"change": {"ok": False, "message": "x" * 4001}}, "change.message"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_report_beyond_a_bound_is_refused_by_the_field(
    change: dict[str, Any], field: str
) -> None:
    assert refusal({**REPORT, **change}, wire.parse_report) == field


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seq": 0}, "seq: must be from 1 to 2147483647"),
        ({"phase": "x"}, "phase: must be one of generating, deploying, ready, failed"),
        ({"logs": ["x"] * 501}, "logs: has more than 500 entries"),
        ({"summary": "x" * 4001}, "summary: is longer than 4000 characters"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_refusal_says_what_would_be_taken(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        wire.parse_report({**REPORT, **change})
    assert str(caught.value) == problem


def test_a_whole_number_without_a_most_names_its_least() -> None:
    with pytest.raises(ProtocolError, match=r"seq: must be at least 1$"):
        Fields({"seq": 0}, "x").whole("seq", least=1)


@pytest.mark.parametrize("name", REPORT)
def test_a_report_that_lacks_a_field_is_refused_by_that_field(name: str) -> None:
    incomplete = {field: value for field, value in REPORT.items() if field != name}

    assert refusal(incomplete, wire.parse_report) == name


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[" * 9_000], ids=range(5)
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        wire.decode(raw, "report")
    assert caught.value.field == "report"


def test_a_document_may_have_some_thousand_values_and_not_many_more() -> None:
    assert wire.decode(b"[" + b"1," * 9_000 + b"1]", "report")
    with pytest.raises(ProtocolError, match="report: has more than 10000 values"):
        wire.decode(b"[" + b"1," * 21_000 + b"1]", "report")


def test_the_longest_texts_fit_into_a_report_beside_the_longest_lines() -> None:
    def failure() -> wire.Failure:
        return wire.Failure(code="x" * 40, message="\U0001f600" * wire.FAILURE_MAX_CHARS)

    report = Report(
        seq=2**31 - 1,
        phase=wire.Phase.READY,
        progress=100,
        message="\U0001f600" * wire.MESSAGE_MAX_CHARS,
        failure=failure(),
        summary="\U0001f600" * wire.SUMMARY_MAX_CHARS,
        outcome=Outcome(failure=failure()),
    )
    assert (wire.LOGS_MAX_BYTES, wire.REPORT_MAX_BYTES) == (256 * 1024, 416 * 1024)
    rest_bytes = len(json.dumps(report.as_json()))
    assert rest_bytes + wire.LOGS_MAX_BYTES <= wire.REPORT_MAX_BYTES


@pytest.mark.parametrize("secret", ["a", "Z9" * 32])
def test_the_secret_of_a_trial_is_letters_and_digits(secret: str) -> None:
    assert wire.parse_secret({"secret": secret}) == secret


@pytest.mark.parametrize(
    "secret", ["", None, 5, "a b", "a-b", "a/b", "\u00e9", "\u0663", "x" * 65], ids=repr
)
def test_a_secret_that_could_be_anything_else_is_refused(secret: object) -> None:
    assert refusal({"secret": secret}, wire.parse_secret) == "secret"
    assert refusal("x", wire.parse_secret) == "trial"


FINDING: dict[str, Any] = {"condition": "well", "problem": "", "requests": 1}


@pytest.mark.parametrize(
    "change", [{"problem": "x" * 1000}, {"requests": 100}, {"condition": "unwell"}], ids=str
)
def test_a_finding_at_its_bounds_is_taken(change: dict[str, Any]) -> None:
    document = {**FINDING, **change}
    finding = wire.parse_finding(document)
    assert (finding.condition, finding.problem, finding.requests) == tuple(document.values())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"problem": "x" * 1001}, "problem"),
        ({"problem": 5}, "problem"),
        ({"requests": 0}, "requests"),
        ({"requests": 101}, "requests"),
        ({"requests": True}, "requests"),
        ({"condition": "odd"}, "condition"),
        ({"condition": None}, "condition"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_finding_beyond_a_bound_is_refused_by_the_field(
    change: dict[str, Any], field: str
) -> None:
    assert refusal({**FINDING, **change}, wire.parse_finding) == field


def test_an_agent_sends_less_than_a_control_plane_takes() -> None:
    lines = ("x" * wire.LOG_LINE_MAX_CHARS,) * wire.LOG_LINES_MAX
    report = replace(wire.parse_report(REPORT), logs=lines)

    assert received(report, wire.parse_report) == report
