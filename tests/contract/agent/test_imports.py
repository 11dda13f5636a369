"""The contract is all that the agent and the control plane share."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CONTRACT = ROOT / "orchestrator" / "contract"
AGENT = ROOT / "runtime-image" / "agent"
HEAVY = ("archive", "bundles", "manifest", "wire")
BEFORE_LISTENING = (
    *("ssl", "hashlib", "random", "pathlib", "tarfile"),
    *(f"orchestrator.contract.{name}" for name in HEAVY),
)


def modules_of(folder: Path, package: str) -> list[str]:
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.py"))
    names = [".".join((package, *path.with_suffix("").parts)) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


def imports_of(folder: Path) -> set[str]:
    """All modules that the files below a folder import."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports relatively"
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def run_python(code: str, *arguments: str) -> str:
    """Run code as the agent runs: without site-packages."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("module", modules_of(CONTRACT, "orchestrator.contract"))
def test_a_module_of_the_contract_imports_only_the_standard_library(
    module: str, tmp_path: Path
) -> None:
    """As in the image: the parent has no __init__.py and holds nothing else of ours."""
    (tmp_path / "orchestrator").mkdir()
    (tmp_path / "orchestrator" / "contract").symlink_to(CONTRACT)
    code = (
        "import sys, importlib; sys.path.append(sys.argv[1]); importlib.import_module(sys.argv[2])"
    )
    run_python(code, str(tmp_path), module)


def test_the_contract_imports_of_ours_only_itself() -> None:
    ours = {name for name in imports_of(CONTRACT) if name.startswith(("orchestrator", "agent"))}
    assert ours
    assert all(name.startswith("orchestrator.contract.") for name in ours)


def test_the_agent_imports_of_the_control_plane_only_the_contract() -> None:
    ours = {name for name in imports_of(AGENT) if name.startswith("orchestrator")}
    assert ours
    assert all(name.startswith("orchestrator.contract") for name in ours)


def test_what_is_loaded_before_the_agent_listens_is_light() -> None:
    code = (
        "import sys; sys.path += sys.argv[1:]; sys.modules['ssl'] = None; import agent.main;"
        "print(*(name for name, module in sys.modules.items() if module))"
    )
    h11 = str(Path(__import__("h11").__file__).parents[1])
    loaded = set(run_python(code, str(AGENT.parent), str(ROOT), h11).split())
    assert "agent.serving.front" in loaded
    assert loaded.isdisjoint(BEFORE_LISTENING)


def test_the_agent_loads_and_packs_a_bundle_without_openssl(tmp_path: Path) -> None:
    code = """
import runpy, sys
from pathlib import Path
launcher, folder, *libraries = sys.argv[1:]
for name in runpy.run_path(launcher)["UNUSED"]:
    sys.modules[name] = None
sys.path += libraries
import agent.work
from orchestrator.contract import archive
Path(folder, "spawn.json").write_text('{"kind": "static"}')
Path(folder, "index.html").write_text("hello")
packed = archive.pack(folder)
print(archive.sha256_hex(packed), *(name for name, module in sys.modules.items() if module))
"""
    h11 = str(Path(__import__("h11").__file__).parents[1])
    launcher = AGENT / "__main__.py"
    output = run_python(code, str(launcher), str(tmp_path), str(AGENT.parent), str(ROOT), h11)
    digest, *loaded = output.split()
    assert len(digest) == 64
    assert set(loaded).isdisjoint({"_ssl", "_hashlib", "_bz2", "_lzma"})
