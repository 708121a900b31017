"""Where training batches come from: samples of any source, with cached, online or reinforced targets."""
