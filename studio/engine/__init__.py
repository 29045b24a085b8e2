"""The only code that imports torch; it runs in child processes."""
