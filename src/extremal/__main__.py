"""`python -m extremal`: the command line."""

from extremal.cli.main import main

main()
