"""Hand-written stand-ins for what the product talks to, named by how they can fail.

Used by tests of every kind and by demos without a key; never by the product itself.
"""
