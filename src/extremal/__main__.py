"""`python -m extremal`: the command line."""

from extremal.cli import main

main()
