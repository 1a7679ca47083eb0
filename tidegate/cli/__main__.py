"""`python -m tidegate.cli`."""

from tidegate.cli.command import main

main()
