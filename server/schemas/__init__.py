"""What comes over the wire, checked, and what goes back, as plain objects for orjson."""
