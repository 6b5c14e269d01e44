"""Models: training, adaptation to data, and scoring."""
