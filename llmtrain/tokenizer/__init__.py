"""Text <-> ids: the SentencePiece tokenizer, its special tokens, its exact twin for Hugging Face. No torch."""
