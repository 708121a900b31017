"""The command line, `python -m distill.render`."""

from distill.render.camera_roll import main

main()
