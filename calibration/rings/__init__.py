"""Steps of banks of microrings."""
