"""What attention costs: time, memory and parameters of networks side by side."""
