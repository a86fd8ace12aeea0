"""What commands import once they run: for the server from which processes that run commands are forked."""

from __future__ import annotations

import gc

import httpcore  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import transformers.models.bert.modeling_bert  # noqa: F401

import agents.cli.evaluate
import agents.cli.reading
import agents.cli.train
import agents.evaluation.evaluate
import agents.policy_gradient.agent
import agents.report.page.run_page
import agents.sb3.agents  # noqa: F401

gc.freeze()  # or a collection in each process would touch, and so copy, all that it shares with the server
