"""What every part uses; it knows none of them."""
