"""How other projects name the weights of the same towers: one file per project, a table from our names to theirs."""
