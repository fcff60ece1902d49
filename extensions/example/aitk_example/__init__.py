"""An example extension of aitk: a process and a model family."""
