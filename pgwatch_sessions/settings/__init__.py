"""The settings: their definition, their sources, and how they are loaded, checked and shown."""
