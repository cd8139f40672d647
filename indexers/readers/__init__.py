"""One module a file format: bytes in, canonical text with page and heading marks out."""
