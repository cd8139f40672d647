"""From a file's bytes to points in an index: read, chunk, filter, store, search (indexers/base.py)."""
