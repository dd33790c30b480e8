"""What accuracy alone does not show."""
