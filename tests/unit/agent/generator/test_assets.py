"""What a page needs of its own origin."""

from __future__ import annotations

from agent.generator.assets import assets_of_page, assets_of_script, assets_of_sheet

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


def test_frames_posters_objects_and_each_size_of_a_picture_are_needed() -> None:
    html = """<iframe src="f.html"></iframe><iframe src="no.html" srcdoc="x"></iframe>
    <iframe src="about:blank"></iframe><video poster="p.png"></video><object data="o.svg"></object>
    <img srcset="a.png, b,c.png 2x,data:image/png;base64,xx 3x, d.png 4x"><embed src=e.svg>
    <picture><source srcset="w.webp 100w"></picture><input type=image src=i.png><input src=n.png>
    """
    assert assets_of_page(html, "/") == [
        *("/f.html", "/p.png", "/o.svg", "/a.png", "/b,c.png", "/d.png", "/e.svg", "/w.webp"),
        "/i.png",
    ]


def test_what_only_browsers_without_scripts_load_is_not_needed() -> None:
    html = "<noscript><img src=no.gif><style>a{b:url(no.png)}</style></noscript><img src=a.png>"
    assert assets_of_page(html, "/") == ["/a.png"]


def test_a_module_needs_what_it_imports() -> None:
    script = """// Copyright; import './no.js'
    "use strict"; /* import './no.js' */
    import {a, b as c} from './a.js'
    import d, * as e from "../d.js"; import './e.js';import"/f.js"
    import g from './g.json' with {type: 'json'};
    export * from './h.js';
    import vue from 'vue'; import x from 'https://cdn.example/x.js'
    export {y} from './y.js';
    export const text = `
    import z from './no.js'
    `;
    import late from './no.js';
    """
    assert assets_of_script(script, "/js/app.js") == [
        *("/js/a.js", "/d.js", "/js/e.js", "/f.js", "/js/g.json", "/js/h.js", "/js/y.js"),
    ]
    assert assets_of_script('import("./no.js"); import "./no.js"', "/") == []
    assert assets_of_script("const a = 1", "/") == []
    assert assets_of_script('import{a}from"./a.js";import*as b from"./b.js"', "/") == [
        *("/a.js", "/b.js")
    ]


def test_a_page_needs_what_its_own_modules_import() -> None:
    html = """<script type="module">import {a} from './a.js'; a()</script>
    <script type=module src=/b.js></script><script>import './no.js'</script>"""
    assert assets_of_page(html, "/x/") == ["/b.js", "/x/a.js"]


def test_a_sheet_needs_the_sheets_that_it_imports() -> None:
    css = "@import 'a.css';@import\"b.css\" screen; @import url('c.css'); h1 { color: red }"
    assert assets_of_sheet(css, "/css/x.css") == ["/css/a.css", "/css/b.css", "/css/c.css"]


def test_broken_html_is_read_as_far_as_it_goes() -> None:
    assert assets_of_page('<script src="a.js"></div><img src="b.png', "/") == ["/a.js"]
