"""Keep an encoded prompt, sample elsewhere without the MLLM."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..squeeze_core.errors import SqueezeError
from . import conditioning_file
from .node_text import shown
from .sockets import CATEGORY

NO_FILE = "(nothing saved yet)"
IN_OUTPUT = " [output]"  # ComfyUI's own way to name a file of the output folder


class SaveConditioning(io.ComfyNode):
    """CONDITIONING -> a safetensors file in the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeSaveConditioning",
            display_name="Save Conditioning",
            category=CATEGORY,
            description="Write an encoded prompt to the output folder. ControlNets and hooks cannot be saved.",
            search_aliases=["export conditioning", "cache prompt", "save embedding"],
            is_output_node=True,
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="From Aggregate, the Timestep Gate or any encoder."),
                io.String.Input(
                    "filename_prefix",
                    default="conditioning/squeeze",
                    tooltip="Folder and start of the file name below the output folder; a number is added.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, conditioning, filename_prefix: str) -> io.NodeOutput:
        folder, name, counter, *_ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        path = Path(folder) / f"{name}_{counter:05}_{conditioning_file.SUFFIX}"
        conditioning_file.save(path, conditioning)
        return io.NodeOutput(ui=shown(f"Saved {path.name}", cls))


class LoadConditioning(io.ComfyNode):
    """A file of the input or output folder -> CONDITIONING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeLoadConditioning",
            display_name="Load Conditioning",
            category=CATEGORY,
            description="Read a prompt that Save Conditioning wrote.",
            search_aliases=["import conditioning", "load embedding"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=_choices() or [NO_FILE],
                    tooltip=f"*{conditioning_file.SUFFIX} in the input folder, or in the output "
                    "folder where marked.",
                )
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="As it was saved.")],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        try:
            if file is not None:  # connected to another node: known only when it runs
                _path(file)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> tuple[int, int] | None:
        if file is None:
            return None
        status = _path(file).stat()
        return status.st_mtime_ns, status.st_size

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(conditioning_file.load(_path(file)))


# folder -> its saved conditionings, and when each folder in it last changed: ComfyUI asks for a node's schema
# several times a run, and an output folder may hold a hundred thousand pictures.
_found: dict[str, tuple[list[str], dict[str, float]]] = {}


def _saved(folder: str) -> list[str]:
    """Names below the folder, kept as ComfyUI keeps lists of models: looked through after a change only."""
    names, changed = _found.get(folder, ([], {}))
    if not changed or any(not os.path.isdir(each) or os.path.getmtime(each) != at for each, at in changed.items()):
        every, changed = folder_paths.recursive_search(folder)
        names = sorted(Path(name).as_posix() for name in every if name.endswith(conditioning_file.SUFFIX))
        _found[folder] = names, changed
    return names


def _choices() -> list[str]:
    """What the page offers."""
    output = [name + IN_OUTPUT for name in _saved(folder_paths.get_output_directory())]
    return _saved(folder_paths.get_input_directory()) + output


def _path(file: str) -> Path:
    name = file.removesuffix(IN_OUTPUT)
    of = folder_paths.get_input_directory if name == file else folder_paths.get_output_directory
    folder = os.path.abspath(of())
    path = Path(os.path.abspath(os.path.join(folder, name)))  # a link may lead elsewhere, ".." may not
    if not (name.endswith(conditioning_file.SUFFIX) and path.is_file() and path.is_relative_to(folder)):
        raise SqueezeError(
            f'There is no saved conditioning "{file}" in the input or the output folder. '
            "Save one first, then refresh the page."
        )
    return path
