"""Rules for windows: pooling and its gradients."""

from __future__ import annotations

from typing import Any

RULES: dict[str, Any] = {}
