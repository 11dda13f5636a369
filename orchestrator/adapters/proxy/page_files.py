"""The files of the page and of its documentation, which nginx serves itself below /static/.

nginx keeps copies: its workers may be unable to enter the folder of the project. An answer of the
API would wait on nginx's disk for as long as a slow client doesn't take it.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

SECURITY_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none';"
        " form-action 'self'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)
"""Of all answers of page and API; the API adds them to its own."""
_SWAGGER = "swagger"
_SWAGGER_FILES = "swagger-ui*"  # the package has other programs, too


def copy(page: Path, target: Path) -> None:
    """Make `target` a copy of the page's folder, with Swagger UI below `swagger/`.

    Safe while nginx reads it: each file is the old or the new one. Raises OSError.
    """
    sources = {path.name: path for path in page.iterdir() if path.is_file()}
    sources |= {f"{_SWAGGER}/{path.name}": path for path in _swagger().glob(_SWAGGER_FILES)}
    for folder in (target, target / _SWAGGER):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    for name, source in sources.items():
        draft = target / f".{source.name}"
        shutil.copyfile(source, draft)
        shutil.copystat(source, draft)  # by its time browsers know a file again
        draft.chmod(0o644)
        draft.replace(target / name)
    for path in target.rglob("*"):
        if path.is_file() and path.relative_to(target).as_posix() not in sources:
            path.unlink()


def _swagger() -> Path:
    """The folder of the package that has Swagger UI; /docs must load nothing from other servers."""
    spec = importlib.util.find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package fastapi-offline isn't installed")
    return Path(spec.origin).parent / "static"
