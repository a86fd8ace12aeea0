"""Audit a reward: ``pmlm audit``."""

from __future__ import annotations

from agents.evaluation.config import AuditConfig

Config = AuditConfig


def run(config: AuditConfig) -> int:
    """Audit; return 1 if a text wins."""
    from agents.evaluation.audit import audit
    from agents.evaluation.audit_report import audit_report

    found = audit(config)
    print(audit_report(found))
    return 1 if found["winners"] else 0
