"""What a linear model's squared error sees of its data: small summaries that add up."""
