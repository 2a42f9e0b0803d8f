"""What the notebooks use: checkers of the exercises, explorers, plots."""
