"""What is saved, committing it safely, reading it back into any number of ranks and any ZeRO stage."""
