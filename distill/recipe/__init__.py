"""The command `pocketclip recipe`: list, explain, check and write recipes."""
