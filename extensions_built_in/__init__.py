"""Everything that YAML can name out of the box, one folder each; found by the entry points in pyproject.toml."""
