"""The Markdown template's renderer: what it makes of good sources, and of hostile ones."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

import orchestrator

RENDERER = Path(orchestrator.__file__).parent / "catalog" / "markdown" / "markdown.js"


class Tags(HTMLParser):
    """What a browser would make of some HTML: tags and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def render(*sources: str) -> list[str]:
    program = (
        "const markdown = require(process.argv[1]);"
        "const sources = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));"
        "console.log(JSON.stringify(sources.map(markdown.render)));"
    )
    node = shutil.which("node")
    assert node, "these tests need Node: apt install nodejs"
    argv = [node, "-e", program, str(RENDERER)]
    done = subprocess.run(
        argv, input=json.dumps(sources), capture_output=True, text=True, timeout=60, check=True
    )
    rendered: list[str] = json.loads(done.stdout)
    return rendered


ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](JaVa\x01script:alert(1))",
    "[a](&#106;avascript:alert(1))",
    "[a](javascript\\:alert(1))",
    "[a](data:text/html,<script>)",
    "[a](vbscript:x)",
    "![a](javascript:alert(1))",
    '![a"onerror="alert(1)](x.png)',
    '[a](x "t" onclick="alert(1)")',
    "[a](http://x/<https://y/onmouseover=alert(1)//>)",
    '<https://x"onmouseover=alert(1)>',
    "![<https://y/onerror=alert(1)//>](x.png)",
    "![[x](http://y/ onerror=1)](a.png)",
    '[a](https://x`" onclick=x`)',
    '```"><script>\nx\n```',
    "# <b onclick=x>",
    '|<i onclick="x">|b|\n|-|-|\n|<script>|[x](javascript:y)|',
    "\ue0000\ue001 <b>",
    "- <b>\n  > <i>",
)


def test_no_markdown_becomes_a_tag_or_an_address_that_could_run() -> None:
    for source, html in zip(ATTACKS, render(*ATTACKS), strict=True):
        for tag, attributes in Tags(html).seen:
            assert tag not in {"script", "b", "i", "iframe"}, (source, html)
            known = {"href", "src", "alt", "title", "rel", "target", "class", "id", "align"}
            assert set(attributes) <= known, (source, html)
            address = attributes.get("href") or attributes.get("src") or ""
            scheme = re.match(r"\s*([a-z]+):", address, re.IGNORECASE)
            assert scheme is None or scheme[1] in {"http", "https", "mailto"}, (source, html)


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("# A *b*", '<h1 id="a-b">A <em>b</em></h1>'),
        ("**a** snake_case_x ~~b~~ `<c>`",
         "<p><strong>a</strong> snake_case_x <del>b</del> <code>&lt;c&gt;</code></p>"),
        ("- a\n  - b\n- c", "<ul>\n<li>a\n<ul>\n<li>b</li>\n</ul></li>\n<li>c</li>\n</ul>"),
        ("3. a\n4. b", '<ol start="3">\n<li>a</li>\n<li>b</li>\n</ol>'),
        ("```py\na < b\n```", '<pre><code class="language-py">a &lt; b\n</code></pre>'),
        ("> a\n\n---", "<blockquote>\n<p>a</p>\n</blockquote>\n<hr>"),
        ("a  \nb", "<p>a<br>\nb</p>"),
        ("|a|b|\n|-|:-:|\n|1 \\| 2|3|",
         "<table>\n<thead><tr><th>a</th><th align=\"center\">b</th></tr></thead>\n<tbody>\n"
         "<tr><td>1 | 2</td><td align=\"center\">3</td></tr>\n</tbody>\n</table>"),
    ],
)  # fmt: skip
def test_markdown_becomes_the_html_one_expects(source: str, html: str) -> None:
    assert render(source) == [html]
