"""What runs on a device: the agent, its local trainer, and the runtime of wearables."""
