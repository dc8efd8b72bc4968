"""Token shards -> batches: mixture, sample order, packing, loader."""
