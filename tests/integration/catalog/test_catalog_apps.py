"""The built-in notes and poll apps, started for real and used over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.catalog.world import ESCAPED, SCRIPT, running


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with running("notes", tmp_path_factory.mktemp("notes")) as (_, client):
        yield client


@pytest.fixture(scope="module")
def poll(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with running("poll", tmp_path_factory.mktemp("poll")) as (_, client):
        yield client


# ---- notes ----


def test_a_note_is_created_found_changed_and_deleted(notes: httpx2.Client) -> None:
    made = notes.post(
        "api/notes",
        json={"title": " Zebra  crossing ", "body": "50% off_", "tags": ["Road", "road"]},
    )
    assert made.status_code == 201
    note = made.json()
    assert (note["title"], note["tags"], note["pinned"]) == ("Zebra crossing", ["road"], False)
    where = made.headers["location"]
    assert where == f"/api/notes/{note['id']}"

    for query in ("q=zebra", "q=cross 50%25", "q=off_", "tag=road", "tag=Road&q=zebra"):
        assert [n["id"] for n in notes.get(f"api/notes?{query}").json()] == [note["id"]], query
    for query in ("q=zebra dog", "q=5%250", "tag=roa", "q=offx"):
        assert notes.get(f"api/notes?{query}").json() == [], query
    assert {"name": "road", "count": 1} in notes.get("api/tags").json()

    changed = notes.put(where, json={"title": "Zebra", "color": "sky", "pinned": True})
    assert changed.json()["color"] == "sky"
    assert notes.get(where).json() == changed.json()
    assert notes.get("api/notes").json()[0]["id"] == note["id"]  # the newest of the pinned

    assert notes.delete(where).status_code == 204
    for gone in (notes.get(where), notes.delete(where), notes.put(where, json={"title": "x"})):
        assert gone.status_code == 404
        assert gone.json() == {"detail": f"There is no note {note['id']}."}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, "a note needs a title or a text"),
        ({"title": "  "}, "a note needs a title or a text"),
        ({"title": "x" * 201}, "title: is longer than 200 characters"),
        ({"title": "x", "color": "mud"}, "color: "),
        ({"title": "x", "tags": [str(n) for n in range(13)]}, "tags: are more than 12"),
        ({"title": 7}, "title: "),
    ],
)
def test_a_bad_note_is_refused_with_a_reason(
    notes: httpx2.Client, body: dict[str, Any], complaint: str
) -> None:
    refused = notes.post("api/notes", json=body)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith(complaint)


def test_a_note_that_is_not_json_is_refused(notes: httpx2.Client) -> None:
    refused = notes.post("api/notes", content="{nope", headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()) == (422, {"detail": "The body isn't valid JSON."})


@pytest.mark.parametrize("path", ["notes.db", "main.py", "spawn.json", "..%2fmain.py", "docs"])
def test_the_notes_server_shows_no_file_of_its_own(notes: httpx2.Client, path: str) -> None:
    assert notes.get(path).status_code == 404


def test_notes_outlive_a_restart(tmp_path: Path) -> None:
    with running("notes", tmp_path) as (app, client):
        where = client.post("api/notes", json={"title": "Still here"}).headers["location"]
        count = len(client.get("api/notes").json())
        app.stop()
        with app.start() as again:
            assert again.get(where).json()["title"] == "Still here"
            assert len(again.get("api/notes").json()) == count  # and no second set of examples


# ---- poll ----


def ask(poll: httpx2.Client, question: str, *options: str, multiple: bool = False) -> str:
    """Create a poll; its path."""
    form = {"question": question, "option": list(options)} | (
        {"multiple": "on"} if multiple else {}
    )
    made = poll.post("polls", data=form)
    assert made.status_code == 303
    assert re.fullmatch(r"p/[0-9a-f]{8}", made.headers["location"])
    return str(made.headers["location"])


def votes(poll: httpx2.Client, where: str) -> list[int]:
    return [option["votes"] for option in poll.get(f"{where}/results").json()["options"]]


def option_ids(poll: httpx2.Client, where: str) -> list[int]:
    return [option["id"] for option in poll.get(f"{where}/results").json()["options"]]


def as_voter(poll: httpx2.Client, where: str, choices: list[int], voter: str) -> httpx2.Response:
    headers = {"Cookie": f"voter={voter}"} if voter else {}
    return poll.post(f"{where}/vote", data={"choice": [str(c) for c in choices]}, headers=headers)


def test_everybody_has_one_vote_and_may_change_it(poll: httpx2.Client) -> None:
    where = ask(poll, "Tea or coffee?", "Tea", "Coffee")
    tea, coffee = option_ids(poll, where)
    assert as_voter(poll, where, [tea], "a" * 20).status_code == 303
    assert as_voter(poll, where, [tea], "b" * 20).status_code == 303
    assert votes(poll, where) == [2, 0]
    assert as_voter(poll, where, [coffee], "b" * 20).status_code == 303
    assert votes(poll, where) == [1, 1]
    page = poll.get(where, headers={"Cookie": f"voter={'b' * 20}"}).text
    assert re.findall(r'value="(\d+)" checked', page) == [str(coffee)]


def test_a_first_vote_gives_the_voter_a_cookie_that_scripts_cannot_read(
    poll: httpx2.Client,
) -> None:
    where = ask(poll, "New here?", "Yes", "No")
    answer = as_voter(poll, where, option_ids(poll, where)[:1], "")
    poll.cookies.clear()
    assert re.match(r"voter=[\w-]{16,};", answer.headers["set-cookie"])
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=lax" in answer.headers["set-cookie"]


def test_only_a_poll_for_several_answers_takes_several(poll: httpx2.Client) -> None:
    several = ask(poll, "Which days?", "Mon", "Tue", "Wed", multiple=True)
    as_voter(poll, several, option_ids(poll, several)[:2], "c" * 20)
    assert votes(poll, several) == [1, 1, 0]
    one = ask(poll, "Which day?", "Mon", "Tue")
    refused = as_voter(poll, one, option_ids(poll, one), "c" * 20)
    assert (refused.status_code, votes(poll, one)) == (422, [0, 0])
    assert "Please choose one answer only." in refused.text


def test_votes_that_make_no_sense_are_refused(poll: httpx2.Client) -> None:
    where = ask(poll, "Up or down?", "Up", "Down")
    other = ask(poll, "Left or right?", "Left", "Right")
    nothing = poll.post(f"{where}/vote", data={})
    assert (nothing.status_code, "Please choose an answer." in nothing.text) == (422, True)
    foreign = as_voter(poll, where, option_ids(poll, other)[:1], "d" * 20)
    assert (foreign.status_code, "part of this poll" in foreign.text) == (422, True)
    assert votes(poll, where) == [0, 0]
    unknown = poll.get("p/00000000")
    assert (unknown.status_code, "There is no such poll." in unknown.text) == (404, True)


@pytest.mark.parametrize(
    ("question", "options", "complaint"),
    [
        ("", ["a", "b"], "Please write a question."),
        ("   ", ["a", "b"], "Please write a question."),
        ("Q?", ["a", " "], "Please write at least two different answers."),
        ("Q?", ["Same", "same "], "Please write at least two different answers."),
        ("Q?", [str(n) for n in range(11)], "A poll may have 10 answers."),
        ("Q" * 201, ["a", "b"], "The question may have 200 characters."),
    ],
)
def test_a_bad_poll_is_refused_with_a_reason(
    poll: httpx2.Client, question: str, options: list[str], complaint: str
) -> None:
    refused = poll.post("polls", data={"question": question, "option": options})
    assert refused.status_code == 422
    assert complaint in refused.text


def test_a_form_of_a_megabyte_is_refused(poll: httpx2.Client) -> None:
    assert poll.post("polls", data={"question": "x" * 1_000_000}).status_code == 413


def test_what_people_write_into_a_poll_stays_text(poll: httpx2.Client) -> None:
    where = ask(poll, f"{SCRIPT}?", f'"{SCRIPT}', "no")
    for page in (poll.get(where), poll.get("")):
        assert ESCAPED in page.text
        assert SCRIPT not in page.text
        assert "default-src 'self'" in page.headers["content-security-policy"]
    refused = poll.post("polls", data={"question": f'"{SCRIPT}', "option": ["one"]})
    assert f"&#34;{ESCAPED}" in refused.text


def test_a_vote_reaches_those_who_watch(poll: httpx2.Client) -> None:
    where = ask(poll, "Live?", "Yes", "No")
    yes, _ = option_ids(poll, where)
    with poll.stream("GET", f"{where}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
        assert next(events)["voters"] == 0
        as_voter(poll, where, [yes], "e" * 20)
        seen = next(events)
    assert (seen["voters"], seen["options"][0]["share"]) == (1, 100)


def test_votes_outlive_a_restart_even_while_somebody_watches(tmp_path: Path) -> None:
    with running("poll", tmp_path) as (app, client):
        where = ask(client, "Still there?", "Yes", "No")
        as_voter(client, where, option_ids(client, where)[:1], "f" * 20)
        with client.stream("GET", f"{where}/events") as stream:
            next(stream.iter_lines())
            app.stop()
        with app.start() as again:
            assert votes(again, where) == [1, 0]
