"""Runtime images on a real Docker engine: identified by their sources, and pruned."""

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
    """Small images that look like runtime images. All are removed at the end."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._names: list[str] = []

    def our_name(self, tag: str) -> str:
        """Return the name under which this installation pushes an image."""
        return f"{self._bench.limits.repository}:{tag}"

    def build(self, name: str, sources_hash: str) -> str:
        if name in self.existing():
            docker_cli("rmi", name)
        with tempfile.TemporaryDirectory() as context:
            dockerfile = f"FROM {self._bench.image}\nLABEL {RUNTIME_LABEL}={sources_hash}\n"
            (Path(context) / "Dockerfile").write_text(dockerfile)
            docker_cli("build", "--quiet", "--tag", name, context)
        self._names.append(name)
        return name

    def tag(self, name: str, other: str) -> str:
        docker_cli("tag", name, other)
        self._names.append(other)
        return other

    def existing(self) -> set[str]:
        """Return the names of these that still exist."""
        return {name for name in self._names if docker_cli("images", "--quiet", name)}

    def remove_all(self) -> None:
        for name in self.existing():
            docker_cli("rmi", name)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with support.new_bench() as bench:
        yield bench


@pytest.fixture
def images(bench: Bench) -> Iterator[Images]:
    images = Images(bench)
    yield images
    support.remove_all(bench.engine)
    images.remove_all()


def test_old_images_of_ours_are_pruned_and_nobody_elses(bench: Bench, images: Images) -> None:
    old = images.build(images.our_name(OLD), OLD * 4)
    new = images.build(images.our_name(NEW), NEW * 4)
    foreign = images.build(f"somebody/runtime-{bench.limits.instance}:{OLD}", "e" * 64)
    assert bench.engine.prune_images(keep=[new]) == 1
    assert images.existing() == {new, foreign}
    assert not bench.engine.image_present(old)
    assert bench.engine.prune_images(keep=[new]) == 0


def test_an_image_stays_while_a_sandbox_runs_it(bench: Bench, images: Images) -> None:
    used = images.build(images.our_name(USED), USED * 4)
    spec = bench.spec(image=used)
    bench.start(spec)
    assert bench.engine.prune_images(keep=[]) == 0
    assert images.existing() == {used}
    bench.engine.remove(spec.sandbox_id)
    assert bench.engine.prune_images(keep=[]) == 1
    assert images.existing() == set()


def test_an_image_that_another_installation_has_too_stays(bench: Bench, images: Images) -> None:
    ours = images.build(images.our_name(SHARED), SHARED * 4)
    foreign = images.tag(ours, f"spawnai/runtime-test-other:{SHARED}")
    bench.engine.prune_images(keep=[])
    assert images.existing() == {foreign}


def test_our_tag_on_another_build_is_not_the_image(bench: Bench, images: Images) -> None:
    name = images.build(images.our_name(NEW), OLD * 4)
    assert not bench.engine.image_present(name)
    images.build(name, NEW * 4)
    assert bench.engine.image_present(name)
