"""`squeeze eval user-study`: make the page, count the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import SqueezeError
from .. import add_command

if TYPE_CHECKING:
    from ...evaluation.user_study.building import Case

EXAMPLE = "squeeze eval user-study build --method Ours=runs/mine --method UNO=runs/uno --data dreambooth"
_ANALYSE_EXAMPLE = "squeeze eval user-study analyse answers --key study.key.json"


def GROUP() -> typer.Typer:
    """`build` and `analyse`."""
    program = typer.Typer(
        help="People score methods side by side, 1 to 10 (Table 5): a page without a server, and its analysis.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    add_command(program, "build", build, f"Example: {EXAMPLE}")
    example = "Example: squeeze eval user-study analyse answers --key study.key.json"
    add_command(program, "analyse", analyse, example)
    return program


def build(
    method: Annotated[list[str], typer.Option(help="NAME=FOLDER of a method's pictures; repeat.")],
    data: Annotated[Path, typer.Option(help="Your copy of the benchmark's official data.")],
    benchmark: Annotated[str, typer.Option(help="dreambench, xversebench, stress, ...")] = "dreambench",
    count: Annotated[int, typer.Option(min=1, help="Questions.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="The same one chooses the same questions.")] = 0,
    out: Annotated[Path, typer.Option(help="The new folder of the page.")] = Path("study"),
) -> None:
    """Write a page that shows the methods shuffled and unnamed, and the key that tells which is which."""
    from ...evaluation import benchmarks
    from ...evaluation.generated_files import collect
    from ...evaluation.runs import check_made_for
    from ...evaluation.user_study import building
    from ..console import say

    folders = _folders(method)
    asked = benchmarks.read(benchmark, data)
    files: dict[tuple[str, int, int], dict[str, Path]] = {}
    texts: dict[tuple[str, int, int], tuple[str, tuple[Path, ...]]] = {}
    for name, folder in folders.items():
        check_made_for(folder, asked, "--method")
        found, _ = collect(folder, asked)
        for picture in found:
            case = (picture.sample.subject, picture.sample.prompt, picture.seed)
            files.setdefault(case, {})[name] = picture.path
            texts[case] = (picture.sample.text, picture.sample.inputs)
    cases: list[Case] = [
        building.Case(f"{case[0]}/{case[1]:02d}_{case[2]}", *texts[case], pictures)
        for case, pictures in files.items()
    ]
    chosen = building.choose(cases, count, seed)
    if len(chosen) < count:
        say(f"Only {len(chosen)} prompts have pictures of all methods; the study has as many questions.")
    building.build(chosen, out)
    say(f"Give participants the folder {out} (open index.html); keep {building.key_path(out).name} to yourself.")
    print(out / "index.html")
    print(building.key_path(out))


def analyse(
    answers: Annotated[Path, typer.Argument(help="Folder of the files that participants saved.")],
    key: Annotated[Path, typer.Option(help="The .key.json written beside the study's folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("scores/user_study"),
) -> None:
    """Mean scores with confidence intervals, and every pair of methods compared."""
    from ...evaluation.user_study import analysis
    from ...evaluation.user_study.answers import read_answers
    from ...evaluation.user_study.building import Key
    from ...files import write_text
    from ..console import make_folder, say

    known = Key.read(key)
    paths = sorted(answers.glob("*.json")) if answers.is_dir() else []
    if not paths:
        raise SqueezeError(f'There are no .json files in "{answers}". Give the folder of the saved answers.')
    votes = read_answers(paths, known)
    for problem in votes.problems:
        say(problem)
    if not votes.votes:
        raise SqueezeError(f'None of the {len(paths)} files in "{answers}" holds a vote of this study.')
    findings = analysis.analyse(votes)
    make_folder(out)
    write_text(out / "user_study.json", json.dumps(findings.as_dict(), indent=1, ensure_ascii=False) + "\n")
    write_text(out / "user_study.md", analysis.markdown(findings))
    for row in findings.methods:
        say(
            f"{row.method:<20} {row.score.mean:.2f}  [{row.score.low:.2f}, {row.score.high:.2f}]  {row.votes} votes"
        )
    print(out / "user_study.json")
    print(out / "user_study.md")


def _folders(method: list[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for text in method:
        name, separator, folder = text.partition("=")
        if not separator or not name.strip() or not folder:
            raise SqueezeError(f'"{text}" is no NAME=FOLDER. Give each method as --method UNO=runs/uno.')
        if name in folders:
            raise SqueezeError(f'The method "{name}" is given twice. Give each a name of its own.')
        folders[name] = Path(folder)
    return folders
