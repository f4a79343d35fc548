"""Tuning: what may vary, the objective, the search, the evidence: candidates, measured, to the best one."""
