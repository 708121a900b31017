"""`python -m distill.render`: render a training set into a folder."""

from distill.render.camera_roll import main

main()
