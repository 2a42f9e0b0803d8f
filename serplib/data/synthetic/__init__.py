"""Built-in shapes, generated on demand."""
