"""What a page needs of its own origin."""

from __future__ import annotations

from agent.generator.assets import assets_of_page, assets_of_sheet

PAGE = """<!doctype html>
<link rel="stylesheet" href="style.css?v=2"><link rel=icon href=/icon.svg>
<link rel="canonical" href="/nowhere"><link rel="preconnect" href="/nowhere">
<script src="/app.js" defer></script><script>const html = '<img src="/nowhere">';</script>
<!-- <img src="/nowhere"> -->
<style>body { background: url('bg.png') } /* url(/nowhere) */</style>
<img src="a b.png" alt=""><img :src="nowhere"><img src=""><img src="data:image/png;base64,xx">
<img src="https://elsewhere.example/x.png"><img src="//elsewhere.example/x.png">
<template><img src="/nowhere"></template>
<video src="clip.mp4"></video><script src="/app.js"></script><a href="/nowhere">x</a>
"""


def test_a_page_needs_what_a_browser_loads_for_it_each_once() -> None:
    assert assets_of_page(PAGE, "/sub/page") == [
        "/sub/style.css?v=2",
        "/icon.svg",
        "/app.js",
        "/sub/a%20b.png",
        "/sub/clip.mp4",
        "/sub/bg.png",
    ]


def test_a_base_moves_relative_links() -> None:
    html = '<base href="/static/"><script src="app.js"></script><img src="/logo.png">'

    assert assets_of_page(html, "/") == ["/static/app.js", "/logo.png"]


def test_a_sheet_needs_what_its_urls_name() -> None:
    css = """@import url(more.css); a { b: url( "x.png" ) } c { d: url('../y.png#z'); e: url(#f) }
    g { h: url(data:image/svg+xml;x) }"""

    assert assets_of_sheet(css, "/css/main.css") == ["/css/more.css", "/css/x.png", "/y.png"]


def test_broken_html_is_read_as_far_as_it_goes() -> None:
    assert assets_of_page('<script src="a.js"></div><img src="b.png', "/") == ["/a.js"]
