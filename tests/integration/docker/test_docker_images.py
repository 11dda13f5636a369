"""Runtime images on a real Docker engine: found by what they were built from, and pruned."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.docker.flags import RUNTIME_LABEL
from tests.integration.docker import support
from tests.integration.docker.support import Bench, docker_cli

OLD, NEW, USED, SHARED = (letter * 16 for letter in "abcd")


class Images:
    """Small images that look like runtime images; all are removed at the end."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._made: list[str] = []

    def ours(self, tag: str) -> str:
        """The name under which this installation pushes one."""
        return f"{self._bench.limits.repository}:{tag}"

    def make(self, name: str, built_from: str) -> str:
        if name in self.there():
            docker_cli("rmi", name)
        with tempfile.TemporaryDirectory() as context:
            dockerfile = f"FROM {self._bench.image}\nLABEL {RUNTIME_LABEL}={built_from}\n"
            (Path(context) / "Dockerfile").write_text(dockerfile)
            docker_cli("build", "--quiet", "--tag", name, context)
        self._made.append(name)
        return name

    def tag(self, name: str, other: str) -> str:
        docker_cli("tag", name, other)
        self._made.append(other)
        return other

    def there(self) -> set[str]:
        """Those of these that are still there."""
        return {name for name in self._made if docker_cli("images", "--quiet", name)}

    def clear(self) -> None:
        for name in self.there():
            docker_cli("rmi", name)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with support.new_bench() as bench:
        yield bench


@pytest.fixture
def images(bench: Bench) -> Iterator[Images]:
    made = Images(bench)
    yield made
    support.clear(bench.engine)
    made.clear()


def test_old_images_of_ours_are_pruned_and_nobody_elses(bench: Bench, images: Images) -> None:
    old = images.make(images.ours(OLD), OLD * 4)
    new = images.make(images.ours(NEW), NEW * 4)
    others = images.make(f"somebody/runtime-{bench.limits.instance}:{OLD}", "e" * 64)
    assert bench.engine.prune_images(keep=[new]) == 1
    assert images.there() == {new, others}
    assert not bench.engine.image_present(old)
    assert bench.engine.prune_images(keep=[new]) == 0


def test_an_image_that_a_sandbox_runs_stays_until_it_is_gone(bench: Bench, images: Images) -> None:
    used = images.make(images.ours(USED), USED * 4)
    spec = bench.spec(image=used)
    bench.start(spec)
    assert bench.engine.prune_images(keep=[]) == 0
    assert images.there() == {used}
    bench.engine.remove(spec.sandbox_id)
    assert bench.engine.prune_images(keep=[]) == 1
    assert images.there() == set()


def test_an_image_that_another_installation_has_too_stays_there(
    bench: Bench, images: Images
) -> None:
    ours = images.make(images.ours(SHARED), SHARED * 4)
    theirs = images.tag(ours, f"spawnai/runtime-test-other:{SHARED}")
    bench.engine.prune_images(keep=[])
    assert images.there() == {theirs}


def test_a_tag_that_was_put_on_another_build_is_not_the_image(bench: Bench, images: Images) -> None:
    name = images.make(images.ours(NEW), OLD * 4)
    assert not bench.engine.image_present(name)
    images.make(name, NEW * 4)
    assert bench.engine.image_present(name)
