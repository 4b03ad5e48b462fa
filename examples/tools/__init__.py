"""What several example scripts share."""
