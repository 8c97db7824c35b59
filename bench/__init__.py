"""Claims, earned: every method over the same recordings, devices and rounds, in simulation."""
