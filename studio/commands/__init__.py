"""The commands of `peft-studio`, a file for each group; `studio/cli.py` puts them together."""
