"""What a run costs, expected and measured."""
