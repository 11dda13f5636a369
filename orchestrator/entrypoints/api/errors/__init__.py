"""How errors are answered: as problem JSON, and what is written down about those of ours."""
