"""The tests; a folder a layer, a file a source file."""
