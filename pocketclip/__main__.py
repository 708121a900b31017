"""`python -m pocketclip` is the `pocketclip` command."""

from app.cli.main import main

main()
