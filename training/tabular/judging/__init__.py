"""What a model of a table is worth, beside forecasts that need no network."""
