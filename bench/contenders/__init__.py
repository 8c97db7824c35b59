"""Ways to learn together, and what bounds them from below and above."""
