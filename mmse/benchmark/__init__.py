"""What attention costs: time, memory and size of backbones side by side."""
