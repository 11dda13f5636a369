"""The instant tier: built-in application templates, one folder each, shipped as package data.

Nothing here is imported to run; a template's folder is packed into a bundle and started in a
sandbox by the agent. Each folder holds ``spawn.json`` (the manifest: kind, name, title,
description, keywords, emoji, accent, and ``start`` for python and node) and the app's files.
Used by: whoever lists templates or turns one into a bundle, through ``importlib.resources``.
"""
