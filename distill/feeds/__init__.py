"""Where training batches come from: cached teacher vectors, online teachers, or reinforced data."""
