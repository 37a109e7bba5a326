"""`python -m hounsfield` is the command `hounsfield`."""

from hounsfield.cli import main

main()
