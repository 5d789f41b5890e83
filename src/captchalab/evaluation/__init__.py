"""A network on the test split: metrics, plots, and the page that compares two networks."""
