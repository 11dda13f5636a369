"""The API does what its document says: Schemathesis tries it, as a client that knows no more.

It sends what the document allows and what it forbids, follows its links, and checks each answer:
status, headers, media type, shape, methods, authentication. It does so as an operator, and as a
user behind the proxy.

By hand for longer, with other seeds: `SPAWN_TEST_API_SEEDS=1,2,3 SPAWN_TEST_API_EXAMPLES=100
.venv/bin/python -m pytest tests/contract/public_api/test_document.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.contract.public_api.installation import Installation, behind_proxy, installation
from tests.documented_answers import Document
from tests.unit.services.world import World

CONFIG = Path(__file__).parent / "schemathesis.toml"
SEEDS = os.environ.get("SPAWN_TEST_API_SEEDS", "7").split(",")
EXAMPLES = os.environ.get("SPAWN_TEST_API_EXAMPLES", "12")  # of each operation
DEADLINE_S = 3600
OPTIONS = (
    f"--max-examples={EXAMPLES}",
    "--suppress-health-check=all",  # they measure time, and how the document is written
    "--no-color",
    "--output-truncate=false",
)
# It takes a version of the same session that doesn't run, and so some luck.
RARELY = {"POST /api/sessions/{session_id}/versions/{version}/restore"}
_SHOWN_CHARS = 20_000


@pytest.fixture
def store_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """One database: test_any_input.py tries both."""
    path = tmp_path / "store.db"
    shutil.copy(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.mark.parametrize("caller", ["operator", "user"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_api_does_what_its_document_says(
    world: World, tmp_path: Path, caller: str, seed: str
) -> None:
    with installation(world, tmp_path) as served:
        if caller == "operator":
            run_schemathesis(served.url, tmp_path, seed, served.operator_key)
        else:
            with behind_proxy(served.url) as url:
                run_schemathesis(url, tmp_path, seed, served.user_key)
        document = httpx2.get(f"{served.url}/openapi.json").json()
    refused = set() if caller == "operator" else operators_own(document)
    assert refused <= never_successful(document, served) <= refused | RARELY


def run_schemathesis(url: str, folder: Path, seed: str, key: str) -> None:
    """Fail with its report if it finds anything."""
    program = Path(sys.executable).parent / "st"
    command = [str(program), f"--config-file={CONFIG}", "run", f"{url}/openapi.json"]
    run = subprocess.run(
        [*command, *OPTIONS, f"--seed={seed}", f"--header=Authorization: Bearer {key}"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    report = "\n".join(line[:1000] for line in run.stdout.splitlines())
    assert run.returncode == 0, report[-_SHOWN_CHARS:] + run.stderr[-_SHOWN_CHARS:]


def never_successful(document: Mapping[str, Any], served: Installation) -> set[str]:
    """The operations that have answered nothing but errors: nothing was learned of these."""
    paths = Document(document)
    successful = {
        paths.name_of(answer.method, answer.path)
        for answer in served.answers
        if answer.status < 300
    }
    return paths.names - successful


def operators_own(document: Mapping[str, Any]) -> set[str]:
    return {name for name in Document(document).names if name.split()[1].startswith("/api/admin")}
