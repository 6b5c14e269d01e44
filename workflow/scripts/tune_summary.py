"""Sum up the trials of a search for better settings.

Input: trials. Output: a table as CSV, the best settings as a configuration file, a figure.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.evaluate.figures.tuning import plot_tuning
    from pidflow.evaluate.tuning import best_trial, read_trials, write_best, write_trials

    run, model = snakemake.wildcards.run, snakemake.wildcards.model
    objective = snakemake.params.tune["objective"]
    trials = read_trials(snakemake.input.trials)
    best = best_trial(trials, objective)
    name = objective.replace("_", " ")
    remark = f"run {run}, best of {len(trials)} trials: {name} {best.value:.5f}, trial {best.number}"
    print(remark, flush=True)
    write_trials(trials, objective, snakemake.output.csv)
    write_best(best, model, snakemake.output.settings, remark=remark)
    plot_tuning(
        trials,
        snakemake.output.figure,
        objective=objective,
        space=snakemake.params.tune["space"],
        title=f"Settings of {model}, run {run}",
    )
