"""Experiments: the paper's tables and figures, and ablations; ``pmlm experiment``."""

from pmlm_env.registry import Registry

#: Experiments by name.
EXPERIMENTS = Registry(
    "experiment",
    "pmlm.experiments",
    {
        "table-1": "agents.experiments.table_1:Table1",
        "table-2": "agents.experiments.table_2:Table2",
        "table-3": "agents.experiments.table_3:Table3",
        "table-a1": "agents.experiments.table_a1:TableA1",
        "figure-6": "agents.experiments.figure_6:Figure6",
        "figure-7": "agents.experiments.figure_7:Figure7",
        "cases": "agents.experiments.cases:Cases",
        "controls": "agents.experiments.controls:Controls",
        "transfer": "agents.experiments.transfer:Transfer",
        "influence": "agents.experiments.influence:Influence",
        "deletion-curve": "agents.experiments.deletion_curve:DeletionCurve",
    },
    ["cells", "run", "table"],
)
