"""Tools that change captions and copy pictures on request: the only part of toolkit/data that writes to a data set."""
