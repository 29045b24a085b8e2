"""What things are: pydantic models and pure functions, no I/O."""
