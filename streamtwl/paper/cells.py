"""The cells of an experiment: a reasoner on a backbone's patches of one split of a data set.

Their order is that of the tables. `runner.py` runs them, `side_by_side.py` over processes;
`found.py` keeps what they find.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.paper import checkpoints
from streamtwl.paper.data_sets import DataSet, Split
from streamtwl.paper.plan import Checkpoint, Data, Gpt2, LanguageModel, Plan

OWN_WINDOWS = "its own"  # backbone of a checkpoint


@dataclass(frozen=True, slots=True)
class Row:
    """A reasoner as the tables show it."""

    name: str
    spec: Gpt2 | LanguageModel | Checkpoint | str
    soft: bool = False

    @property
    def sampled(self) -> bool:
        """Whether it reads samples: it has a K."""
        if isinstance(self.spec, str):
            return self.spec == "counts"
        return isinstance(self.spec, Gpt2) and not self.soft


@dataclass(frozen=True, slots=True)
class Cell:
    """One file of results."""

    data: DataSet
    source: Data
    split: Split
    backbone: str
    row: Row
    seed: int


class NotRun(msgspec.Struct, frozen=True):
    """Why cells were not run, and what would run them."""

    data: str
    backbone: str
    reasoner: str
    reason: str
    command: str


def rows_of(plan: Plan) -> list[Row]:
    """Return the reasoners of a plan, in the order of the tables."""
    rows = [Row(SHOWN_NAMES.get(kind, kind), kind) for kind in plan.reasoners]
    for spec in plan.gpt2:
        name = spec.name or f"GPT-2 ({Path(spec.trunk).name}), {spec.weights}"
        if spec.embedding == "own" and not spec.name:
            name += ", own words"
        rows.append(Row(name, spec))
        if spec.soft:
            rows.append(Row(f"{name}, soft trace", spec, soft=True))
    rows += [Row(f"{each.preset}, zero-shot", each) for each in plan.llm]
    rows += [Row(each.name or Path(each.file).stem, each) for each in plan.checkpoint]
    names = [row.name for row in rows]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"two reasoners are called '{twice[0]}': give one of them a `name`")
    return rows


SHOWN_NAMES = {
    "names-vote": "majority vote, by names",
    "names-mean": "mean, by names",
    "names-log-mean": "log-mean, by names",
    "vote": "majority vote",
    "hmm": "HMM filter",
    "counts": "linear, counts of samples",
    "linear-root": "linear, root of mean",
    "linear-mean": "linear, mean",
    "linear-mean-log": "linear, mean of logs",
    "linear-tempered": "linear, tempered mean",
    "linear-embedding": "linear, embedding",
}


def of_plan(plan: Plan, sets: Sequence[tuple[Data, DataSet]]) -> Iterator[Cell]:
    """Yield all cells; raises UsageError for what was trained on a fold that is tested."""
    rows = rows_of(plan)
    for _, data in sets:
        for window in plan.backbones:
            checkpoints.refuse_taught(window, data)
    for row in rows:
        if isinstance(row.spec, Checkpoint):
            for _, data in sets:
                checkpoints.refuse_tested(row.spec, data)
    for source, data in sets:
        for backbone in plan.backbones:
            for row in rows:
                if isinstance(row.spec, Checkpoint):
                    continue
                seeds = plan.seeds if _is_random(row) else plan.seeds[:1]
                for split in data.splits:
                    yield from (Cell(data, source, split, backbone, row, seed) for seed in seeds)
        for row in rows:
            if isinstance(row.spec, Checkpoint):
                for split in data.splits:
                    yield Cell(data, source, split, OWN_WINDOWS, row, plan.seeds[0])


def _is_random(row: Row) -> bool:
    """Whether another seed gives other scores: through draws, weights, or the validation split."""
    return not isinstance(row.spec, str) or not row.spec.startswith("names-")


def command_for(cell: Cell, error: StreamtwlError, config: str, absent: bool) -> str:
    """Return the command that would run a cell that could not be run; `absent`: its backbone."""
    again = f"streamtwl paper {config}"
    spec, backbone = cell.row.spec, cell.backbone.partition(":")[0]
    if absent:
        if backbone == "ast":
            released = "MIT/ast-finetuned-audioset-10-10-0.4593"
            return f"streamtwl models export-ast {released}, then {again}"
        return f"streamtwl models pull {backbone}, then {again}"
    if isinstance(spec, Gpt2) and "--body" in str(error):
        if "/" in spec.trunk and not Path(spec.trunk).exists() and ".gguf" not in spec.trunk:
            folder = spec.trunk.replace("/", "-")
            fetch = f"hf download {spec.trunk} --local-dir {folder}"
            return f'{fetch}, then with trunk = "{folder}" {again}'
        return f"streamtwl bench pretrain -o {Path(spec.trunk).name}, then {again}"
    if isinstance(spec, LanguageModel):
        if "extra `llm`" in str(error):
            return f"pip install 'streamtwl[llm]', then {again}"
        return f"serve {spec.model or spec.preset} at {spec.endpoint}, then {again}"
    if isinstance(spec, Checkpoint):
        return f"streamtwl train {cell.source.folder} -o {Path(spec.file).name}, then {again}"
    return again
