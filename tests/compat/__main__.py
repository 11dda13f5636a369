"""`make compat`: writes docs/compatibility.md. Its tables are those that the tests try."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.compat import document

FILE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"


def main() -> None:
    """Write the file. With `--check`: end with 1 if it is out of date."""
    text = document.render()
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text, "utf-8")
    elif FILE.read_text("utf-8") != text:
        sys.exit(f"{FILE} is out of date: make compat")


if __name__ == "__main__":
    main()
