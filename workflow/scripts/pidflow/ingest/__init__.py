"""From input files to track tables."""
