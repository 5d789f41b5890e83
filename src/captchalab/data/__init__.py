"""Captchas: drawn from a seed, kept as splits on disk, fed to training in batches."""
