"""`python -m proxy` is `hip`."""

from proxy.cli import main

main()
