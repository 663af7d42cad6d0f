"""What one replica can carry and what it burns, and how many replicas a demand needs."""
