"""What runs on the server: rounds, aggregation, distillation, releases."""
