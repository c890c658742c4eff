"""What the gates of a network do: how open they are, for which classes, on which image."""
