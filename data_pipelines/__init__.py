"""Raw text -> clean documents -> tokenizer -> token shards. Runs before training and never imports torch."""
