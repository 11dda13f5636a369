"""Prompts that get a template, and prompts that don't, with the real catalog."""

from __future__ import annotations

import pytest

from orchestrator.adapters.files.catalog import FolderCatalog
from orchestrator.services.sessions import templates

CLEAR = {
    "kanban": [
        "a kanban board",
        "kanban",
        "Kanban!",
        "KANBAN BOARD",
        "build a simple kanban board for us",
        "please can you create a Kanban app",
        "I want a task board",
        "a trello-like app",
        "trello clone",
    ],
    "snake": [
        "make me a snake game please",
        "snake",
        "Snake game",
        "a little snake web game",
        "spawn a retro snake",
        "jeu du serpent",
    ],
    "todo": [
        "todo",
        "a to-do list",
        "todo list app",
        "To Do List, please!",
        "make a nice little todo app for me",
        "give me my todo list",
        "liste de tâches",
    ],
    "landing": ["a landing page", "landing page website", "create a new landing page"],
    "pomodoro": ["pomodoro", "a pomodoro timer", "build me a focus timer"],
    "markdown": ["markdown editor", "a live markdown tool", "I need a markdown preview"],
    "dashboard": ["a sales dashboard", "dashboard", "analytics dashboard web app"],
    "shortener": ["url shortener", "a link shortener site", "bitly"],
    "notes": ["notes", "a simple notes app", "sticky notes please"],
    "poll": ["live poll", "a voting app", "create a poll", "poll"],
}

SPECIAL = [
    "a kanban board that syncs with jira and has swimlanes",
    "a landing page for my bakery",
    "a kanban board with three columns",
    "a snake game with two players",
    "snake in 3d",
    "multiplayer snake",
    "not a kanban board",
    "anything but a snake game",
    "a todo list that sends emails",
    "todo list in the style of a medieval manuscript",
    "a dashboard for my greenhouse sensors",
    "a poll about pizza",
    "a pomodoro timer with cat pictures",
    "notes on quantum physics",
    "a notes app with end-to-end encryption",
    "an url shortener with analytics",
    "a markdown editor with latex support",
]

AMBIGUOUS = [
    "a kanban board and a todo list",
    "snake or pomodoro",
    "notes with a poll",
    "a dashboard, a landing page",
]

UNRELATED = [
    "",
    "   ",
    "?!",
    "🚀",
    "a game",
    "make me an app",
    "a board game",
    "a web page",
    "kanbanboard",
    "snakes",
    "tides of Brest",
    "ein Spiel",
    "todo " * 40,
    "please " * 13 + "snake",
]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [(prompt, name) for name, prompts in CLEAR.items() for prompt in prompts],
)
def test_a_prompt_of_a_keyword_and_filler_words_gets_the_template(
    catalog: FolderCatalog, prompt: str, name: str
) -> None:
    template = templates.find_match(prompt, catalog.list())
    assert template is not None
    assert template.name == name


@pytest.mark.parametrize("prompt", SPECIAL)
def test_a_prompt_that_describes_something_special_gets_no_template(
    catalog: FolderCatalog, prompt: str
) -> None:
    assert templates.find_match(prompt, catalog.list()) is None


@pytest.mark.parametrize("prompt", AMBIGUOUS)
def test_a_prompt_that_names_two_templates_gets_neither(
    catalog: FolderCatalog, prompt: str
) -> None:
    assert templates.find_match(prompt, catalog.list()) is None


@pytest.mark.parametrize("prompt", UNRELATED)
def test_a_prompt_that_names_no_template_gets_none(catalog: FolderCatalog, prompt: str) -> None:
    assert templates.find_match(prompt, catalog.list()) is None


def test_the_catalogs_order_does_not_matter(catalog: FolderCatalog) -> None:
    reversed_catalog = list(reversed(catalog.list()))
    for name, prompts in CLEAR.items():
        for prompt in prompts:
            template = templates.find_match(prompt, reversed_catalog)
            assert template is not None
            assert template.name == name


def test_an_empty_catalog_has_no_match() -> None:
    assert templates.find_match("snake", []) is None
