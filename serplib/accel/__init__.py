"""Faster twins of the plain operations: optional, same results within stated rounding."""
