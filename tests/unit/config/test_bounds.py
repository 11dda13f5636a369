"""Every number among the settings is finite and has a least and a most."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import annotated_types
import pytest
from pydantic import ValidationError

from orchestrator import bootstrap, config
from orchestrator.entrypoints.cli import local
from orchestrator.entrypoints.cli.problems import Problem


def numbers() -> Iterator[tuple[str, str, Any, list[Any]]]:
    """Each number: its name, its variable, its type, and what bounds it."""
    for _, name, info in config.fields():
        if info.annotation in {int, float, Decimal}:
            yield name, config.variables(name, info)[0], info.annotation, list(info.metadata)


def most(bounds: list[Any]) -> Any:
    return next(bound.le for bound in bounds if isinstance(bound, annotated_types.Le))


NUMBERS = {variable: (name, kind, bounds) for name, variable, kind, bounds in numbers()}


@pytest.fixture(autouse=True)
def own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWN_STATE_DIR", str(tmp_path))


@pytest.mark.parametrize("variable", NUMBERS)
def test_a_number_has_a_least_and_a_most(variable: str) -> None:
    _, _, bounds = NUMBERS[variable]
    assert any(isinstance(bound, annotated_types.Ge | annotated_types.Gt) for bound in bounds)
    assert any(isinstance(bound, annotated_types.Le) for bound in bounds)


@pytest.mark.parametrize("value", ["inf", "nan", "-inf", "1e300", "9" * 30, "9" * 5000, "more"])
@pytest.mark.parametrize("variable", NUMBERS)
def test_a_number_that_nothing_can_be_computed_with_is_named_in_one_sentence(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Problem) as problem:
        local.settings()
    assert problem.value.code == "invalid_settings"
    assert str(problem.value).startswith(f"{variable}: ")
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("variable", NUMBERS)
def test_one_more_than_the_most_is_refused(variable: str, tmp_path: Path) -> None:
    name, kind, bounds = NUMBERS[variable]
    config.make(state_dir=tmp_path, **{name: kind(most(bounds))})
    with pytest.raises(ValidationError, match=name):
        config.make(state_dir=tmp_path, **{name: kind(most(bounds) + 1)})


def test_moments_can_be_computed_from_the_most_of_everything(tmp_path: Path) -> None:
    largest = {name: kind(most(bounds)) for name, kind, bounds in NUMBERS.values()}
    settings = config.make(state_dir=tmp_path, **{**largest, "control_port": 1})
    policy = bootstrap.build(settings, bootstrap.NoEngines()).policy
    now = datetime(2026, 1, 1, tzinfo=UTC)
    deadlines = policy.deadlines
    for ahead_s in (
        policy.bundle_retention_s,
        deadlines.provisioning_s,
        deadlines.generating_s,
        deadlines.deploying_s,
    ):
        assert now + timedelta(seconds=ahead_s) > now
    assert now - timedelta(seconds=policy.audit_retention_s) < now


@pytest.mark.parametrize("level", ["verbose", "", "notset", "10"])
def test_a_level_of_the_log_that_does_not_exist_is_refused(level: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"log_level\n.*debug, info, warning, error"):
        config.make(state_dir=tmp_path, log_level=level)


def test_levels_of_the_log_may_be_in_capitals(tmp_path: Path) -> None:
    assert config.make(state_dir=tmp_path, log_level="WARNING").processes.log_level == "warning"


@pytest.mark.parametrize("name", ["trusted_proxies", "proxy_addresses"])
def test_no_list_of_proxies_holds_everybody(name: str, tmp_path: Path) -> None:
    for everybody in ("0.0.0.0/0", "10.0.0.5,0.0.0.0/1"):
        wrong: dict[str, Any] = {name: everybody}
        with pytest.raises(ValidationError, match=rf"{name}\n.*wider"):
            config.make(state_dir=tmp_path, **wrong)
    right: dict[str, Any] = {name: "10.0.0.0/8,192.0.2.7"}
    config.make(state_dir=tmp_path, **right)


@pytest.mark.parametrize("network", ["::/0", "2000::/3"])
def test_no_list_of_proxies_holds_everybody_over_ipv6(network: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"trusted_proxies\n.*wider"):
        config.make(state_dir=tmp_path, trusted_proxies=network)
    config.make(state_dir=tmp_path, trusted_proxies="fc00::/7")


@pytest.mark.parametrize(
    ("given", "keeps"),
    [
        ({}, True),
        ({"warm_interpreters": False}, False),
        ({"sandbox_memory_mb": 255}, False),
        ({"sandbox_memory_mb": 256}, True),
    ],
)
def test_only_sandboxes_with_enough_memory_keep_interpreters(
    given: dict[str, Any], keeps: bool, tmp_path: Path
) -> None:
    settings = config.make(state_dir=tmp_path, **given)

    assert bootstrap.build(settings, bootstrap.NoEngines()).policy.warm_interpreters is keeps
