"""Errors as people and scripts see them: exit codes, codes, advice."""

from __future__ import annotations

import pytest

from orchestrator.domain import errors
from orchestrator.entrypoints.api.errors.problems import STATUS_OF
from orchestrator.entrypoints.cli import exits, output, problems
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem


def test_the_numbers_that_scripts_rely_on() -> None:
    assert {code.name: code.value for code in Exit} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "UNAUTHORIZED": 3,
        "NOT_FOUND": 4,
        "UNREACHABLE": 5,
        "CONFLICT": 6,
        "PROBLEMS": 7,
        "INTERRUPTED": 130,
    }


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (errors.InvalidInput, Exit.USAGE),
        (errors.TooLarge, Exit.USAGE),
        (errors.Unauthorized, Exit.UNAUTHORIZED),
        (errors.Forbidden, Exit.UNAUTHORIZED),
        (errors.NotFound, Exit.NOT_FOUND),
        (errors.Conflict, Exit.CONFLICT),
        (errors.LimitReached, Exit.CONFLICT),
        (errors.Temporary, Exit.UNREACHABLE),
        (errors.SpawnError, Exit.FAILED),
    ],
)
def test_each_error_of_the_api_has_its_exit_code(
    kind: type[errors.SpawnError], expected: Exit
) -> None:
    assert exits.for_status(dict(STATUS_OF)[kind]) is expected


def problem_for(status: int, code: str, **members: object) -> Problem:
    return problems.from_response(status, {"code": code, "detail": "what happened", **members})


def test_a_problem_keeps_the_apis_words_and_code() -> None:
    problem = problem_for(422, "prompt_empty", field="prompt")
    assert (problem.exit_code, problem.code, problem.message) == (
        Exit.USAGE,
        "prompt_empty",
        "what happened",
    )
    assert problem.advice


@pytest.mark.parametrize(("status", "code"), [(422, "ttl_out_of_range"), (403, "ttl_not_allowed")])
def test_a_ttl_out_of_range_names_the_range(status: int, code: str) -> None:
    problem = problem_for(status, code, min_s=60, max_s=86400)
    assert problem.advice == ("Choose between 1 min and 1 d, e.g. --ttl 2h",)


def test_a_ttl_that_is_no_time_has_no_range_to_name() -> None:
    assert problem_for(422, "ttl_out_of_range").advice == ()


def test_without_a_claude_key_the_setting_and_the_way_to_templates_are_named() -> None:
    problem = problem_for(
        409, "generation_unavailable", setting="ANTHROPIC_API_KEY", templates=["kanban", "todo"]
    )
    advice = " ".join(problem.advice)
    assert "ANTHROPIC_API_KEY" in advice
    assert "spawnctl templates" in advice


def test_a_limit_says_when_to_come_back() -> None:
    problem = problem_for(429, "too_many_sessions", limit=5, retry_after_s=90)
    assert problem.exit_code is Exit.CONFLICT
    assert problem.advice[-1] == "Or try again in 1 min 30 s."


def test_a_proxy_that_stands_alone_is_an_unreachable_control_plane() -> None:
    problem = problems.from_response(502, None)
    assert (problem.exit_code, problem.code) == (Exit.UNREACHABLE, "unreachable")
    assert any("spawnctl up" in line for line in problem.advice)


def test_an_answer_that_is_no_problem_document_still_says_its_status() -> None:
    problem = problems.from_response(418, {"teapot": True})
    assert (problem.exit_code, problem.code) == (Exit.USAGE, "http_418")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.InvalidInput("no", code="ttl_out_of_range"), Exit.USAGE),
        (errors.EngineUnavailable("no"), Exit.UNREACHABLE),
        (errors.NotFound("no"), Exit.NOT_FOUND),
        (errors.SandboxRefused("no"), Exit.FAILED),
    ],
)
def test_errors_of_this_side_have_the_same_exit_codes(
    error: errors.SpawnError, expected: Exit
) -> None:
    assert problems.from_error(error).exit_code is expected


def test_an_error_is_message_code_and_advice_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_problem(
        Problem(Exit.FAILED, "app_not_ready", "It broke.\n\x1b[31mline", "Mend it.")
    )
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "Error: It broke.",
        "line",
        "Code:  app_not_ready",
        "Do:    Mend it.",
    ]
