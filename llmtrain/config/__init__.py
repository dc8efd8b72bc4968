"""What a user may set: typed, frozen sections, and the loader that remembers where each value came from."""
