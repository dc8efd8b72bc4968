"""Tokens on disk: the format, its writer and its reader. The one owner of the format; numpy only."""
