"""What captioners share: pictures in, text out, files that are never overwritten. Extensions bring the models."""
