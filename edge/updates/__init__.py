"""Updates over the air: how a wearable comes by a release, tries it, and goes back."""
