"""Characters that some readers of lines take for an end, though a stream of events has them in its
data."""

SEPARATORS = "\u2028\u2029\u0085\u000b\u000c\u001c\u001d\u001e"
