"""What a method is made of, and the loop that trains it."""
