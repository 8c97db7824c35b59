"""A wearable at work: what it recognises, decides and says."""
