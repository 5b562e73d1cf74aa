"""Packages that lie: sound by every hash, and wrong in what they say."""
