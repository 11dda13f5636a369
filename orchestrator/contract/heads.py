"""The head of a request or an answer, on its way between a visitor and an app.

How long it may be: the proxy, the agent's front and the check of an app all hold it. And which
headers of a request an app gets: what the proxy says of the visitor, and nothing that a visitor
could say in its place. And which headers of an answer a visitor gets.
"""

from __future__ import annotations

HEAD_MAX_BYTES = 64 * 1024
HEAD_MAX_LINES = 1000
"""Of the headers of a request: what nginx takes by default (`max_headers`). Versions without that
setting, which would refuse to start with it, don't count."""
HEAD_ROOM_BYTES = 4 * 1024
"""For what the proxy and the front add to a head that is just short enough."""

SET_BY_PROXY = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")
"""What it says of each visitor, whatever the visitor says: one address, "http" or "https", a host.
"""
_SPELLED = frozenset(name.lower().encode() for name in SET_BY_PROXY) | frozenset(
    (b"host", b"content-length", b"transfer-encoding")
)
"""No other name may pass for one of these. CGI and WSGI know no difference between X-Forwarded-For
and X_Forwarded_For (RFC 9110, section 17.10), nor does nginx between its $http_ variables."""
_OF_ONE_HOP = b"""connection keep-alive proxy-connection proxy-authenticate proxy-authorization te
    trailer upgrade http2-settings proxy"""
"""RFC 9110, section 7.6.1, and RFC 7540, section 3.2.1. Trailers are dropped, so nothing announces
them. CGI makes the variable HTTP_PROXY of the last one."""
_WHERE_FROM = b"""forwarded forwarded-for x-forwarded client-ip true-client-ip x-client-ip
    x-cluster-client-ip x-originating-ip x-proxyuser-ip x-real-ip x-remote-addr x-remote-ip
    x-true-client-ip cloudfront-viewer-address do-connecting-ip fastly-client-ip fly-client-ip
    x-appengine-user-ip x-azure-clientip x-azure-socketip x-envoy-external-address
    x-nf-client-connection-ip"""
_ASKED_HOW = b"""front-end-https script-name x-accel-mapping x-arr-ssl x-host x-http-host-override
    x-rewrite-url x-scheme x-script-name x-sendfile-type x-url-scheme"""
_BY_WHOM = b"""x-authenticated-user x-client-cert x-client-verify x-goog-iap-jwt-assertion
    x-remote-user x-ssl-client-cert x-ssl-client-verify x-webauth-user"""
_REMOVED = frozenset(b" ".join((_OF_ONE_HOP, _WHERE_FROM, _ASKED_HOW, _BY_WHOM)).split())
_REMOVED_FAMILIES = (
    b"cf-",  # Cloudflare: -Connecting-IP, -IPCountry, -Visitor, -Access-Jwt-Assertion …
    b"remote-",  # -Addr, -User, -Name, -Email, -Groups
    b"tailscale-user-",
    b"x-amzn-oidc-",
    b"x-auth-request-",
    b"x-forwarded-",  # -Port, -Prefix, -Server, -Scheme, -Ssl, -User, -Email, -Access-Token …
    b"x-goog-authenticated-user-",
    b"x-ms-client-principal",
    b"x-original-",  # -URL, -Host, -Method, -Forwarded-For …
    b"x-spawn-",  # ours, for the front
)
_STEERING = b"""x-sendfile x-sendfile2 x-lighttpd-send-file x-lighttpd-send-tempfile
    x-lighttpd-kbytes-per-second x-litespeed-location x-reproxy-file x-reproxy-url surrogate-control
    surrogate-key cdn-cache-control cloudflare-cdn-cache-control netlify-cdn-cache-control
    vercel-cdn-cache-control edge-control edge-cache-tag cache-tag x-litespeed-cache-control
    x-litespeed-purge x-litespeed-tag alt-svc"""
"""By these an answer steers what stands before us. nginx drops them as they are spelled here."""
_KEPT_BACK = frozenset(b" ".join((_OF_ONE_HOP, b"proxy-authentication-info", _STEERING)).split())
_KEPT_BACK_FAMILIES = (
    b"x-accel-",
    b"x-spawn-",  # an app's answer must not pass for one of ours
)
_DASHES = bytes(
    code if chr(code).isascii() and chr(code).isalnum() else ord("-") for code in range(256)
)


def reaches_app(name: bytes) -> bool:
    """Whether an app gets a header of a request. `name` is in lower case.

    Removed is what only somebody before the app can know: where a visitor is, who it is, and what
    was asked. All that we know of this, SET_BY_PROXY says; and what a proxy before ours knows, such
    as a visitor's token, is not for apps that nobody has reviewed. However it is spelled: what
    differs in dashes, underscores and dots alone is the same.
    """
    plain = name.translate(_DASHES)
    if plain in _SPELLED:
        return name == plain
    return not (plain in _REMOVED or plain.startswith(_REMOVED_FAMILIES))


def reaches_visitor(name: bytes) -> bool:
    """Whether a visitor gets a header of an app's answer. `name` is in lower case.

    Removed is what concerns one connection, and what is for a proxy, however it is spelled. What
    frames the body, and what `Connection` names, is the caller's matter.
    """
    plain = name.translate(_DASHES)
    return not (plain in _KEPT_BACK or plain.startswith(_KEPT_BACK_FAMILIES))
