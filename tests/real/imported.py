"""What commands import once they run: for the server from which processes that run commands are forked."""

from __future__ import annotations

import transformers.models.bert.modeling_bert  # noqa: F401

import agents.cli.evaluate
import agents.cli.reading
import agents.cli.train
import agents.evaluation.evaluate
import agents.policy_gradient.agent
import agents.report.page.run_page
import agents.sb3.agents  # noqa: F401
