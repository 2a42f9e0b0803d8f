"""Suites of experiments, their records and their reports (paper, section 4)."""
