"""Config-driven pretraining of language models on DeepSpeed."""
