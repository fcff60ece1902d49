"""What every trainer does around its data and its step: build, sample, validate, save, in one session."""
