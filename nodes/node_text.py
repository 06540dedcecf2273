"""Text on a node, below its widgets."""

from __future__ import annotations

from comfy_api.latest import io, ui


def shown(text: str, node: type[io.ComfyNode]) -> ui.PreviewText:
    """Show it, and return it for `NodeOutput(ui=...)`, which the history keeps.

    The page draws the text of `ui` on its own preview nodes only, so it is sent to the node as well.
    node: with `io.Hidden.unique_id` among the hidden inputs of its schema.
    """
    from server import PromptServer

    if node.hidden is not None:  # None when called by hand
        PromptServer.instance.send_progress_text(text, node.hidden.unique_id, PromptServer.instance.client_id)
    return ui.PreviewText(text)
