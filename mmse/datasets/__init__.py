"""The built-in data set, converters of public ones, and checks of anybody's data."""
