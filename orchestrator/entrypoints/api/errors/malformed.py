"""The answer to what is no HTTP at all, which no app ever sees. serving.py gives it to uvicorn.

The proxy passes none of it on, so this is for who asks a server directly.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestrator.entrypoints.api.errors import problems

_DETAIL = (
    "This is no valid request of HTTP/1.1. Look at its method, its address, its lengths and its"
    " other headers."
)


class ProblemConnection(HttpToolsProtocol):
    """A connection on which a malformed request gets a problem, as every other error does."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - says less, and in plain text
        """What uvicorn calls for it. The connection ends: nobody knows where the next begins."""
        answer = problems.problem(400, "bad_request", _DETAIL)
        headers = [*answer.raw_headers, (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(
            b"".join((b"HTTP/1.1 400 Bad Request\r\n", lines, b"\r\n", answer.body))
        )
        self.transport.close()
