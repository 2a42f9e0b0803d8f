"""Fixtures of the tests of data sets."""

from data_helpers import root  # noqa: F401
