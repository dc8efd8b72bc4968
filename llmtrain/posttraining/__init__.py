"""SFT, reward model and PPO on TRL: the only package that spells TRL's arguments."""
