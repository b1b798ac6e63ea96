"""The engine: plan, scheduler and worker processes that make the runs of a recipe."""
