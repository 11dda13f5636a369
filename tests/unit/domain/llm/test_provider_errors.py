"""What providers say of an error, and whose matter it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.llm import provider_errors
from orchestrator.domain.llm.provider_errors import Cause, ProviderError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("type", "error", "message", "code", "detail", "loc", "msg")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.integers(400, 599))
def test_any_document_is_read(document: object, status: int) -> None:
    assert provider_errors.find_cause(status, provider_errors.read(document)) in Cause


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"type": "error", "error": {"type": "t", "message": "m"}}, "m"),
        ({"error": {"message": "m", "code": 5}}, "m"),
        ({"error": "m"}, "m"),
        ({"message": "m"}, "m"),
        ({"detail": "m"}, "m"),
        ({"detail": [{"loc": ["body", "x", 0], "msg": "m"}, 7]}, "body.x.0: m"),
        ({"detail": {"x": 1}}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_a_message_is_read_from_each_shape(document: object, message: str) -> None:
    assert provider_errors.read(document).message == message


@pytest.mark.parametrize(
    ("status", "kind", "message", "cause"),
    [
        (400, "invalid_request_error", "Your credit balance is too low", Cause.NO_CREDIT),
        (400, "billing_error", "", Cause.NO_CREDIT),
        (402, "", "", Cause.NO_CREDIT),
        (403, "", "Insufficient credits", Cause.NO_CREDIT),
        (429, "insufficient_quota", "", Cause.NO_CREDIT),
        (429, "rate_limit_error", "slow down", Cause.OTHER),
        (500, "api_error", "credit balance is too low", Cause.OTHER),
        (400, "authentication_error", "", Cause.KEY),
        (400, "invalid_request_error", "This organization has been disabled.", Cause.KEY),
        (401, "", "", Cause.KEY),
        (400, "invalid_request_error", "prompt is too long", Cause.OTHER),
    ],
)
def test_an_error_is_the_matter_of_the_account_of_the_key_or_of_neither(
    status: int, kind: str, message: str, cause: Cause
) -> None:
    error = ProviderError(kind=kind, message=message)
    assert provider_errors.find_cause(status, error) is cause


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"error": {"code": 429}}, 429),
        ({"error": {"code": "503"}}, 503),
        ({"error": {"status": 404, "code": "no_such_model"}}, 404),
        ({"error": "m", "status_code": 502}, 502),
        ({"object": "error", "code": 400}, 400),
        ([{"error": {"code": 401}}], 401),
        ({"error": {"code": 200}}, None),
        ({"error": {"code": 42900}}, None),
        ({"error": {"code": True}}, None),
        ({"error": {"code": [429]}}, None),
        ({"error": {"code": "\u0664\u0662\u0669"}}, None),
        ([{"error": {"code": 401}}] * 2, None),
        ("429", None),
    ],
    ids=str,
)
def test_an_error_may_name_a_status(document: object, status: int | None) -> None:
    assert provider_errors.status_in(document) == status


def test_an_error_with_nothing_in_it_is_none() -> None:
    assert provider_errors.error_of({"error": {"message": "", "code": None}}) is None
    assert provider_errors.error_of({"error": {"message": "", "code": 5}}) is not None
