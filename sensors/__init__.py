"""What a device senses: sources, clocks, windows, recordings, a simulator."""
