"""The socket types of the pack and what travels through them."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "Squeeze"

MLLM = io.Custom("SQUEEZE_MLLM")  # hosting.HostedMLLM
DLA = io.Custom("SQUEEZE_DLA")  # hosting.HostedDLA
States = io.Custom("SQUEEZE_STATES")  # squeeze_core.mllm.states.LayerStates
Weights = io.Custom("SQUEEZE_WEIGHTS")  # squeeze_core.dla.LayerWeights
ReferenceLatents = io.Custom("SQUEEZE_REFERENCES")  # squeeze_core.references.References
Subjects = io.Custom("SQUEEZE_SUBJECTS")  # layout.Subject, in a tuple
Plans = io.Custom("SQUEEZE_PLAN")  # a tuple of squeeze_core.planning.plan.ScenePlan, the best first
Boxes = io.Custom("BOUNDING_BOX")  # core's: {x, y, width, height} in pixels, in lists of lists

MAX_PICTURES = 12


def pictures_input(tooltip: str) -> io.Autogrow.Input:
    """Sockets picture_1, picture_2, ... that grow as they are connected; none is needed."""
    template = io.Autogrow.TemplateNames(
        io.Image.Input("image", optional=True, tooltip=tooltip),
        names=[f"picture_{number}" for number in range(1, MAX_PICTURES + 1)],
        min=0,
    )
    return io.Autogrow.Input("images", template=template, optional=True, tooltip=tooltip)


# For nodes with growing inputs: the server then passes on what has no socket, and the node can refuse it by name.
# Older servers have no such option, and leave out what is no link.
REFUSES_UNKNOWN = {"accept_all_inputs": True} if "accept_all_inputs" in io.Schema.__dataclass_fields__ else {}


def boxes_input(name: str, tooltip: str, *, advanced: bool = False) -> io.Input:
    """A socket for core's boxes. By itself the page makes a widget of it, which always holds a box of 512 px."""
    return Boxes.Input(
        name, optional=True, tooltip=tooltip, advanced=advanced or None, extra_dict={"forceInput": True}
    )
