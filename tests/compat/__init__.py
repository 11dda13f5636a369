"""What SpawnAI copes with, as tables: the tests try each row, `make compat` writes them down."""
