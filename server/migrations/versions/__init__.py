"""One file a schema version. Written once, never changed: what they make is what catalogs out there have."""
