"""Each module measures one thing: `measure` returns its rows. bench/all_groups.py lists them."""
