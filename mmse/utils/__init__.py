"""What every room may use: errors, files, words, versions."""
