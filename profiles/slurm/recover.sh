#!/usr/bin/env bash
# After Snakemake itself was killed (kill -9, login node rebooted): its jobs go on in Slurm, its lock stays.
#
#   profiles/slurm/recover.sh [the arguments that snakemake had]
#
# cancels the jobs that work in this checkout and removes the lock; the same command of snakemake then goes on from what
# was finished. Does nothing while Snakemake works on this checkout on this host; does no harm when called again.
set -euo pipefail
cd "$(dirname "$0")/../.."
checkout=$(pwd -P)
patience=120 # seconds for cancelled jobs to end

head='(^|[/ ])snakemake(/__main__\.py)? '
# jobs are Snakemake too; the shell that starts one quotes the mode
job=" --mode '?(remote|subprocess)"
for process in /proc/[0-9]*; do
    [[ $(readlink "$process/cwd" 2> /dev/null) == "$checkout" ]] || continue
    command=$(tr '\0' ' ' 2> /dev/null < "$process/cmdline") || continue
    if [[ $command =~ $head && ! $command =~ $job ]]; then
        echo "Snakemake works on $checkout (process ${process#/proc/}): end it first, by kill -INT" >&2
        exit 1
    fi
done

ours() {
    squeue --noheader --user="$(id -un)" --format='%i %Z' |
        awk -v checkout="$checkout" 'substr($0, index($0, " ") + 1) == checkout { print $1 }'
}

jobs=$(ours)
if [[ -n $jobs ]]; then
    echo "Cancelling" $jobs
    scancel $jobs
fi
while [[ -n $jobs ]]; do
    if ((SECONDS > patience)); then
        echo "Jobs" $jobs "did not end within $patience s: ask Slurm why, then call this again" >&2
        exit 1
    fi
    sleep 1
    jobs=$(ours)
done
if [[ -n $(ls -A .snakemake/locks 2> /dev/null) ]]; then
    snakemake --unlock "$@"
fi
echo "Recovered: start snakemake again"
