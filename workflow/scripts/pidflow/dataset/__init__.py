"""From track tables to the tracks and features that models see."""
