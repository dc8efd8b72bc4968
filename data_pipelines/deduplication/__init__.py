"""Repeats within and across sources: exact documents, near duplicates, paragraphs; at any size."""
