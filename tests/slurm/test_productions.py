"""Productions on a real Slurm of two nodes: the same products as on a laptop, whatever breaks on the way."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from itertools import pairwise

from checkout import Checkout, artefacts
from cluster import Job, wait_until
from production import RUN, RUNS, Production

TRAINED = (f"results/{RUN}/train", f"results/{RUN}/export", f"results/{RUN}/publication")
FEATURES = (f"results/{RUN}/dataset/features.json", *TRAINED)
# more than a first attempt at ranking features may hold, less than a second
HOG_MB = 2300


def published_once(production: Production, *runs: int) -> bool:
    """Return whether the registry holds one publication of each run, their objects and nothing else."""
    registry = production.folder / "registry"
    entries = [json.loads(path.read_text()) for path in registry.glob("entries/**/*.json")]
    blobs = (blob for entry in entries for kind in ("objects", "documents") for blob in entry[kind].values())
    stored = {path.name for path in registry.glob("objects/*/*")}
    return sorted(int(entry["metadata"]["run"]) for entry in entries) == [*runs] and stored == {
        blob["sha256"] for blob in blobs
    }


def ran_twice_at_a_time(production: Production) -> list[tuple[Job, Job]]:
    """Return the attempts at the same job of the workflow that overlap in time."""
    attempts = defaultdict(list)
    for job in production.jobs():
        # a group's comment does not say which of its jobs it is
        if "_wildcards_" in job.comment and job.node:
            attempts[job.comment].append(job)
    return [pair for jobs in attempts.values() for pair in pairwise(jobs) if pair[1].start < pair[0].end]


def assert_whole(production: Production, laptop: Checkout, *runs: int) -> None:
    """Assert that a production of runs left what an undisturbed one on the laptop left, and nothing in Slurm."""
    expected = artefacts(laptop.folder)
    assert any(path.endswith(".onnx") for path in expected)
    assert artefacts(production.folder) == expected
    assert published_once(production, *(runs or (RUN,)))
    assert not ran_twice_at_a_time(production)
    assert not production.queue()
    assert not production.locks()


def states(jobs: list[Job]) -> list[str]:
    """Return the states of jobs."""
    return [job.state for job in jobs]


def test_a_production_on_slurm_makes_what_a_laptop_makes(production: Production, laptop: Checkout) -> None:
    production.remove("results", "resources", "logs")
    production.run(*RUNS)
    assert_whole(production, laptop, *RUNS)
    assert set(states(production.jobs())) == {"COMPLETED"}
    assert {job.node for job in production.jobs()} == set(production.cluster.nodes)


def test_failing_jobs_and_a_restarted_controller(production: Production, laptop: Checkout) -> None:
    production.remove(*FEATURES)
    production.order("hog", "select_features", str(HOG_MB))
    production.order("die", "adapt_model")
    production.order("hold", "train_model")
    head = production.start()
    training = production.wait_for_fault("hold", "train_model")
    slurm = production.cluster
    slurm.stop_controller(signal.SIGTERM)
    slurm.start_controller()
    assert production.job(training.number).state == "RUNNING"
    slurm.stop_controller(signal.SIGKILL)
    # it goes on while nobody listens
    production.release("hold", "train_model")
    slurm.start_controller()
    production.finish(head)

    over_memory, enough = production.of_rule("select_features")
    assert over_memory.state != "COMPLETED" and enough.state == "COMPLETED"
    assert over_memory.memory_mb < HOG_MB < enough.memory_mb
    assert "exceeded memory limit" in production.log_of(over_memory)
    assert states(production.of_rule("adapt_model")) == ["FAILED", "COMPLETED"]
    assert states(production.of_rule("train_model")) == ["COMPLETED"]
    failed = [job for job in production.jobs() if job.state != "COMPLETED"]
    assert len(failed) == 2
    assert_whole(production, laptop)


def test_a_node_that_dies_in_mid_training(production: Production, laptop: Checkout) -> None:
    production.remove(*TRAINED)
    head = production.start()
    checkpoint = production.folder / f"results/{RUN}/train/.fse.checkpoint"
    production.wait_at_work("the first epoch ended", checkpoint.exists, pause=0.01)
    (training,) = production.of_rule("train_model")
    production.cluster.kill_node(training.node)
    assert checkpoint.exists(), "the training ended before the node died"
    production.finish(head)

    lost, resumed = production.of_rule("train_model")
    assert (lost.state, resumed.state) == ("NODE_FAIL", "COMPLETED")
    assert lost.node != resumed.node
    assert "resumed after epoch" in production.log_of_training()
    assert_whole(production, laptop)
    production.cluster.start_node(training.node)
    production.cluster.command("srun", f"--nodelist={training.node}", "--time=1", "--mem=50", "true")


def test_a_killed_snakemake_is_recovered(production: Production, laptop: Checkout) -> None:
    production.remove(*TRAINED)
    production.order("hold", "train_model")

    interrupted = production.start()
    production.wait_for_fault("hold", "train_model")
    interrupted.send_signal(signal.SIGINT)
    wait_until("Snakemake to end after SIGINT", lambda: interrupted.poll() is not None, 60)
    wait_until("its jobs to end", lambda: not production.queue(), 30)
    assert not production.locks()

    killed = production.start()
    orphan = production.wait_for_fault("hold", "train_model", times=2)
    refused = production.recover()
    assert refused.returncode == 1 and "Snakemake works on" in refused.stdout, refused.stdout
    killed.kill()
    killed.wait()
    assert production.locks()
    assert production.job(orphan.number).state == "RUNNING"

    # without recovery nothing starts beside the orphan
    locked = production.start()
    wait_until("Snakemake to see the lock", lambda: locked.poll() is not None, 60)
    assert locked.returncode != 0
    assert len(production.queue()) == 1

    recovered = production.recover()
    assert recovered.returncode == 0 and str(orphan.number) in recovered.stdout, recovered.stdout
    assert not production.queue() and not production.locks()
    again = production.recover()
    assert again.returncode == 0 and "Cancelling" not in again.stdout, again.stdout

    production.release("hold", "train_model")
    production.run()
    assert states(production.of_rule("train_model")) == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert_whole(production, laptop)
