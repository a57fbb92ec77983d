"""API shapes: what the API server serves, and the one neutral view the rest of the code sees."""
