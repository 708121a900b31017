"""`python -m app` is the `pocketclip` command, also where the package is not installed."""

from app.cli.main import main

main()
