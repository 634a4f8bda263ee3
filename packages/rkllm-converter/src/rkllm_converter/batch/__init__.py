"""Many conversions, one after another, as a models.yaml lists them."""
