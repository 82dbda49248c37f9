"""What sending costs, measured."""
