"""Special tokens: fixed ids, the same in every tokenizer.

All are control symbols: encoding raw text never produces them, whatever the text says.
"""

UNKNOWN, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<pad>"
UNKNOWN_ID, BOS_ID, EOS_ID, PAD_ID = 0, 1, 2, 3

CHAT_SYMBOLS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX = "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"
FILL_IN_THE_MIDDLE_SYMBOLS = (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)
CONTROL_SYMBOLS = (*CHAT_SYMBOLS, *FILL_IN_THE_MIDDLE_SYMBOLS)
