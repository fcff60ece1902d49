"""What was encoded, kept on disk: rows of tensors by key, and what fills them."""
