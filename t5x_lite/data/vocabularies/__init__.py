"""Vocabularies: tokenizers of every family, from published files and from SentencePiece models."""
