"""The command line: python -m laser_jax COMMAND --workdir=RUN --out=DIR FILE_OR_DIR...

`compress` and `decompress` also take --codec=pixels, which needs no run.
"""

import argparse
import sys

from laser_jax import allocator
from laser_jax.commands import compress, decompress, export, reconstruct, report, sample
from laser_jax.paths import printable

COMMANDS = (reconstruct, compress, decompress, sample, export, report)


def main(argv=None):
    """Runs a command and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m laser_jax", description="Uses a trained run.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands).set_defaults(run=command.run)
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(printable(error), file=sys.stderr)
        return 1


if __name__ == "__main__":
    allocator.keep_freed_memory()
    sys.exit(main())
