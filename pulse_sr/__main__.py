"""Runs the command line: `python -m pulse_sr`."""

from pulse_sr.cli import main

if __name__ == "__main__":
    main(prog_name="pulse-sr")
