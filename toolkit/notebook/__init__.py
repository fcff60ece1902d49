"""The pipeline of training as Python objects, for notebooks and one's own experiments: `aitk.Dataset`."""
