"""One module for each protocol: who is who among a set's recordings."""
