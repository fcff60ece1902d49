"""A folder becomes records: the walk, headers of files, and the index that remembers them."""
