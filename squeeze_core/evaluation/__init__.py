"""The paper's measures, and what every measure shares.

`samples` says what a benchmark asks for, `naming` which picture belongs to which case, `pictures` reads them,
`backbones` (with `detector` and `orientation`) turns them into numbers, `measures/` has one file a measure,
`statistics` says how sure a mean is, `report` writes it all down beside the paper's own rows (`published`).
"""
