"""What an encoder and its restorations are worth (paper, section 4.2)."""
