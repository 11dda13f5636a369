"""The built-in templates: apps that start at once, without Claude. One folder each, as package data.

The control plane never imports an app. It packs the template's folder into a bundle, and the agent
starts that in a sandbox. Each folder holds the app's files and its manifest ``spawn.json``: kind,
name, title, description, keywords, emoji, accent, and ``start`` for python and node.
``adapters.files.catalog`` reads the folders.
"""
