"""Looking inside a trained network: what its gates do, for which classes, and to which image."""
