"""The contract of malloc as small programs, one promise each, run on any allocator in processes of their own."""

from heapsmith.lab.checks.contract import (
    CHECKS_SCHEMA,
    Check,
    CheckResult,
    list_checks,
    run_check,
    run_checks,
    select_checks,
)

__all__ = ["CHECKS_SCHEMA", "Check", "CheckResult", "list_checks", "run_check", "run_checks", "select_checks"]
