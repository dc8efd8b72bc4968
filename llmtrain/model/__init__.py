"""The single-device GPT of both families; it knows no rank. Conversion to and from Hugging Face beside it."""
