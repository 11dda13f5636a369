"""The app that every peer starts: it answers each request with 200. Given to `python3 -c`."""

import http.server


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"ok")

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


http.server.ThreadingHTTPServer(("", 3000), Handler).serve_forever()
