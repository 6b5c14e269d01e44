"""Upload of publications to the CCDB, and what a reader needs of it."""
