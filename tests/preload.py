"""Imports all that a command may import, once, before processes are forked."""

import gc
import importlib
import pkgutil

import zephyr

for module in pkgutil.walk_packages(zephyr.__path__, "zephyr."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

gc.freeze()  # a fork that looked for garbage in it would copy it
