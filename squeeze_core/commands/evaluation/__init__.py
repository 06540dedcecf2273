"""The commands of `squeeze eval`, one module each; what they share is in `options` and `scoring`."""
