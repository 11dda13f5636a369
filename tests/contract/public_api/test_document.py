"""The API does what its document says: Schemathesis tries it, as a client that knows no more.

It sends what the document allows and what it forbids, follows its links, and checks each answer:
status, headers, media type, shape, methods, authentication.

By hand for longer, with other seeds:
`SPAWN_TEST_API_SEEDS=1,2,3 SPAWN_TEST_API_EXAMPLES=100 .venv/bin/python -m pytest
tests/contract/public_api/test_document.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.public_api.installation import installation
from tests.unit.services.world import World

CONFIG = Path(__file__).parent / "schemathesis.toml"
SEEDS = os.environ.get("SPAWN_TEST_API_SEEDS", "7").split(",")
EXAMPLES = os.environ.get("SPAWN_TEST_API_EXAMPLES", "10")  # of each operation
DEADLINE_S = 3600
OPTIONS = (
    "--checks=all",
    "--phases=examples,coverage,fuzzing,stateful",
    f"--max-examples={EXAMPLES}",
    "--suppress-health-check=all",  # they measure time, and how the document is written
    "--no-color",
    "--output-truncate=false",
)
_SHOWN_CHARS = 20_000


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("caller", ["operator", "user"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_api_does_what_its_document_says(
    world: World, tmp_path: Path, caller: str, seed: str
) -> None:
    with installation(world, tmp_path) as served:
        key = served.operator_key if caller == "operator" else served.user_key
        program = str(Path(sys.executable).parent / "st")
        command = [program, f"--config-file={CONFIG}", "run", f"{served.url}/openapi.json"]
        caller_options = [f"--header=Authorization: Bearer {key}", f"--seed={seed}"]
        run = subprocess.run(
            [*command, *OPTIONS, *caller_options],
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
    report = "\n".join(line[:1000] for line in run.stdout.splitlines())
    assert run.returncode == 0, report[-_SHOWN_CHARS:] + run.stderr[-_SHOWN_CHARS:]
