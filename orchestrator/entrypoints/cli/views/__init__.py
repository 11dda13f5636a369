"""How results look in a terminal: tables, facts, progress. Used by the commands."""
