"""Settings: TOML in, frozen dataclasses out; a wrong key or value is refused before any work starts.

Only the driver reads TOML. Names of generators, judges, recipes and policies are checked one floor up,
where their tables are known (``stages.check``).
"""

from __future__ import annotations

from pipeline.config.read import (
    check_category_name,
    data_root,
    from_json,
    load_category,
    load_profile,
    load_toml,
    nearest,
    to_json,
)
from pipeline.config.settings import (
    Accelerator,
    Cast,
    CastName,
    Category,
    Device,
    Endpoint,
    Pin,
    Policy,
    Pool,
    Price,
    Profile,
    Rate,
    Recipe,
    Rewrite,
    Rubric,
    Runner,
    Safety,
    Settings,
    Size,
)

__all__ = [
    "Accelerator",
    "Cast",
    "CastName",
    "Category",
    "Device",
    "Endpoint",
    "Pin",
    "Policy",
    "Pool",
    "Price",
    "Profile",
    "Rate",
    "Recipe",
    "Rewrite",
    "Rubric",
    "Runner",
    "Safety",
    "Settings",
    "Size",
    "check_category_name",
    "data_root",
    "from_json",
    "load_category",
    "load_profile",
    "load_toml",
    "nearest",
    "to_json",
]
