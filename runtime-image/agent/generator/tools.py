"""The descriptions of the model's tools, as data. `toolbox.py` carries the calls out."""

from __future__ import annotations

from typing import Any

from orchestrator.contract.bundles import MANIFEST_NAME

Tool = dict[str, Any]


def _tool(name: str, description: str, required: dict[str, Any], **optional: Any) -> Tool:
    return {
        "name": name,
        "description": description,
        "input_schema": {
            "type": "object",
            "properties": {**required, **optional},
            "required": list(required),
        },
    }


def _text(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


_PATH = _text("Relative to the app's folder.")
# Without it the API holds back each file until it is complete, and the progress stands still.
_EAGER = {"eager_input_streaming": True}

TOOLS: list[Tool] = [
    _tool("list_files", "List all files of the app with their sizes.", {}),
    _tool("read_file", "Read a text file.", {"path": _PATH}),
    _tool(
        "write_file",
        "Write a file in full; folders are made. Replaces what was there.",
        {"path": _PATH, "content": _text("The whole file.")},
    )
    | _EAGER,
    _tool(
        "edit_file",
        "Replace one piece of a file. old_text must occur exactly once, to the character.",
        {
            "path": _PATH,
            "old_text": _text("What is there now."),
            "new_text": _text("What is to be."),
        },
    )
    | _EAGER,
    _tool("delete_file", "Delete a file.", {"path": _PATH}),
    _tool(
        "run",
        "Run a command with sh -c in the app's folder and see its output. Without a network, with"
        " limits on time, output and memory; what it leaves running is stopped. For a look at"
        " something, such as `python -m py_compile main.py` or `node --check server.js`.",
        {"command": _text("For sh -c.")},
        limit_s={"type": "number", "description": "Seconds; at most 60."},
    ),
    _tool(
        "start_app",
        f"Start the app as {MANIFEST_NAME} says, anew if it runs, and check `/` and the files that"
        " the page loads. Says what is wrong, with the last lines of the log.",
        {},
    ),
    _tool(
        "check_app",
        "GET paths of the running app as a browser that opens them: status, headers, beginning of"
        " the body; and its log.",
        {
            "paths": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Such as / or /api/items. At most 10.",
            }
        },
    ),
    _tool(
        "finish",
        "The app is complete. It is checked; if it isn't in good health, you are told why.",
        {
            "summary": _text(
                "For the user, in their language: what the app does and what changed, in one to"
                " three sentences."
            )
        },
    ),
]
