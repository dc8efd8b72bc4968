"""The loop, its progress and its evaluation."""
