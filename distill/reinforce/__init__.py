"""`pocketclip reinforce`: store teacher vectors of many augmented views of each photo."""
