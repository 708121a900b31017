"""How other projects name the weights of the same towers: one file a project, each a table from our names to theirs."""
