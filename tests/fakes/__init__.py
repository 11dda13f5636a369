"""Hand-written fakes of what the product talks to, named by how they fail.

Used by tests of every kind, by bench/ and by deploy/fresh.sh; never by the product itself.
"""
