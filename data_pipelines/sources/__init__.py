"""Each module turns one kind of raw input into documents."""
