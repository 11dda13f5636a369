"""The source of an app, as a zip file that is made while it is sent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.adapters.files import bundle_store
from orchestrator.domain import errors
from orchestrator.domain.people.access import Principal
from orchestrator.entrypoints.api.auth import Caller
from orchestrator.entrypoints.api.bounds.inputs import SessionIdInPath, VersionInQuery
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.entrypoints.api.errors.documented import failing
from orchestrator.services.agents import assignments
from orchestrator.services.sessions import requests, versions

router = APIRouter(prefix="/api", tags=["sessions"])

_AT_ONCE = 2
"""Downloads of a user: each takes a processor for a second or two. The proxy bounds those of an
address."""


class _Zip(Response):
    """For the documentation."""

    media_type = "application/zip"


@router.get(
    "/sessions/{session_id}/bundle",
    response_class=_Zip,
    responses=failing("too_many_downloads", "version_unknown"),
)
async def bundle(
    request: Request,
    principal: Caller,
    session_id: SessionIdInPath,
    version: VersionInQuery = None,
) -> StreamingResponse:
    """The source of the app, as a zip file."""
    context = context_of(request)
    with contextlib.ExitStack() as holds:
        holds.enter_context(context.downloads.hold(principal.user_id, _AT_ONCE))
        name, data = await context.in_thread(_load, context, principal, session_id, version)
        return _Download(name, bundle_store.zipped(data), holds.pop_all())


def _load(
    context: Context, principal: Principal, session_id: str, version: int | None
) -> tuple[str, bytes]:
    """The name of the file, and the bundle."""
    deps = context.deps
    session = requests.get(deps, principal, session_id)
    digest = session.bundle
    if version is not None:
        digest = versions.get_version(deps, session, version).sha256
    if digest is None:
        raise errors.NotFound("this session has no version yet", code="version_unknown")
    data = assignments.load_bundle(deps.catalog, deps.bundles, digest)
    return f"{session.template or 'app'}-{session.id[4:12]}.zip", data


class _Download(StreamingResponse):
    """Sends a zip file, and lets go of what it holds when it has been sent, or can't be."""

    def __init__(self, name: str, parts: Iterator[bytes], holds: contextlib.ExitStack) -> None:
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        super().__init__(parts, media_type=_Zip.media_type, headers=headers)
        self._holds = holds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._holds:
            await super().__call__(scope, receive, send)
