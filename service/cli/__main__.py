"""``python -m service.cli``: the ``vqd`` command."""

from service.cli.app import main

main()
