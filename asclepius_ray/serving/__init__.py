"""Model → endpoint, on Ray Serve."""
