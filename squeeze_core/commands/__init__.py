"""The commands of `squeeze`, one module each.

A module holds a function of its own name, with typer's options as parameters, and may hold EXAMPLE, a line for
the end of its help. Nothing heavy is imported before a command runs, so that help comes at once.
"""
