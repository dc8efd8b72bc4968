"""Conversations, preferences and prompts: what instruction tuning and alignment learn from. No torch."""
