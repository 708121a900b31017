"""The `pocketclip` command: one module for each command or group of commands."""
