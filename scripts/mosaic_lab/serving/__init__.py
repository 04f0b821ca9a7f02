"""How many tokens a second many requests get, from each way of serving a model."""
