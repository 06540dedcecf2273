"""Encoders that measure pictures, or plan them: DINO, CLIP, detector, orientation, and where they lie on disk."""
