"""Where training batches come from: cached teacher embeddings, teachers run at every step, or reinforced data."""
