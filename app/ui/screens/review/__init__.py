"""Review the labels that the model is least sure of."""
