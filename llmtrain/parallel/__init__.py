"""Everything that knows ranks: layout, groups, the DeepSpeed configuration, the engine."""
