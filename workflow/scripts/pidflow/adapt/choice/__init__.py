"""The choice among adapted models: scores that need no label of data."""
