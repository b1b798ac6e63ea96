"""Recipe schema of run settings (jobs, processes, sharding, dtype); they change no result."""

from typing import Literal

from zephyr.recipe.part import Positive, RecipePart


class RunSettings(RecipePart):
    """How the machine is used: none of it enters a fingerprint.

    `jobs` stages run side by side, each on its share of the processor's cores. `processes` make
    each training together, one training at a time; with `shard` the weights are sharded over them,
    where each would otherwise hold them all. `token_budget` is the number of tokens in one forward;
    where it is not given, a training takes what its memory allows. `dtype: auto` trains adapters on
    weights in bfloat16 where they are stored in 16 bits and the machine multiplies in it; so are
    evaluations on a GPU, while on a processor they are in float32 unless told otherwise.
    `checkpoint_every` counts optimizer steps. Without `proofs` (`--no-proofs`) training starts
    without preflight checks. `track` names experiment trackers that get the metrics of trainings as
    they come; they write into the folder of the run (trackio into its own), and nothing leaves the
    machine unless the environment says so.
    """

    jobs: Positive = 1
    processes: Positive = 1
    shard: bool = False
    token_budget: Positive | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_every: Positive = 200
    proofs: bool = True
    track: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
