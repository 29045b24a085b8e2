"""Where things are kept: the home folder, the index, locks."""
