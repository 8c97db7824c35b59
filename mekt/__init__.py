"""The language every part of Mekt shares: errors, settings, messages, the link to the broker, encoders, losses."""

__version__ = "0.1.0"
