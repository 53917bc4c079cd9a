"""Distance of embeddings with its gradient in one launch."""
