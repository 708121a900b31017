"""`python -m app` is the `pocketclip` command, for a checkout that isn't installed."""

from app.cli.main import main

main()
