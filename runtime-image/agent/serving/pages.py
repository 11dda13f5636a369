"""The small pages that the agent itself shows. Pure; used by `front.py` and its siblings."""

from __future__ import annotations

from orchestrator.contract.front_pages import PAGE_HEADER, FrontPage

STYLE = (
    "body{font:17px/1.6 system-ui,sans-serif;max-width:34rem;margin:18vh auto;padding:0 1.5rem;"
    "color:#1c2430;background:#fafbfc}h1{font-size:1.4rem}"
    "@media(prefers-color-scheme:dark){body{color:#dfe5ee;background:#12161c}}"
)


def page(title: str, text: str, *, reload_s: int | None = None) -> bytes:
    """A whole HTML document. The arguments aren't escaped: pass constants only."""
    refresh = f'<meta http-equiv="refresh" content="{reload_s}">' if reload_s else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{refresh}'
        '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>{text}</p></html>\n"
    ).encode()


def marked(mark: FrontPage) -> tuple[tuple[str, str], ...]:
    """The header that tells such a page from one of the app."""
    return ((PAGE_HEADER, mark.value),)


NOT_ASSIGNED = page("Nothing here yet", "No app lives at this address.")
STARTING = page("Starting", "This app is starting. The page reloads by itself.", reload_s=1)
STOPPED = page("Stopped", "This app stopped running. Its session page says why.")
NO_ANSWER = page("No answer", "The app closed the connection without an answer.")
BAD_ANSWER = page("No valid answer", "The app sent something that is not a valid HTTP answer.")
LONG_HEAD = page("Answer too long", "The head of the app's answer has more than 64 KiB.")
LONG_REQUEST = page(
    "Request too long",
    "Address, cookies and other headers of a request may have 64 KiB together. Clear the cookies "
    "of this address, and try again.",
)
TOO_SLOW = page(
    "This came too slowly",
    "What you sent took too long on its way. Go back, and try again, on a better connection.",
)
NOT_FOUND = page("Not found", "This app has no such page.")


def too_large(limit: str) -> bytes:
    return page(
        "This is too large",
        f"An app takes up to {limit} in one request, files included. Go back, and choose something"
        " smaller.",
    )
