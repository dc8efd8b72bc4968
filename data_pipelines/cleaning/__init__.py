"""Cleaning: from the text a reader made to the text that is kept, as a list of named steps."""
