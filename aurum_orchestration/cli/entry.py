"""What the ``aurum`` script starts. It imports nothing before it can end quietly by Ctrl-C."""

import sys


def main() -> None:
    """Run the command. What is interrupted while it is still imported ends as a command does: with 130."""
    try:
        from aurum_orchestration.cli.main import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(130)
