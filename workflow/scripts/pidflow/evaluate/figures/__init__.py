"""Figures: one module per family; each function draws one file, whose format follows from its suffix."""
