"""What a model has read as a thing of its own: kept, merged, cut, bounded and searched."""
