"""PEFT Studio: fine-tune a language model on your own data, and use it."""

__version__ = "0.1.0"
