"""Reports: made from results alone, for the terminal, print and the browser."""
