"""The label that means "no target here"."""

IGNORE_INDEX = -100
