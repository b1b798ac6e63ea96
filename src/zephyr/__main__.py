"""`python -m zephyr` is the command line."""

from zephyr.cli.app import main

if __name__ == "__main__":
    main()
