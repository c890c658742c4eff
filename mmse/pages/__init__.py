"""How figures and HTML pages look and are written, whatever they show."""
