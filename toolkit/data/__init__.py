"""Pictures to batches: scan, bucket, caption, order, image, cache. Takes plain arguments, never a config."""
