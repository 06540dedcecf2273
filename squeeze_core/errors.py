"""The one error type that users see."""


class SqueezeError(ValueError):
    """Something the user gave does not fit.

    The message is one or two sentences: what was given, what is accepted, what to do.
    """
