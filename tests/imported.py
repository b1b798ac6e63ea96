"""All that a command may import."""

import importlib
import pkgutil

import zephyr

for module in pkgutil.walk_packages(zephyr.__path__, "zephyr."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
