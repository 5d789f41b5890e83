"""Results of finished chains: networks that git keeps."""
