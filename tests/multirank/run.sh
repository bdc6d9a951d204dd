#!/bin/sh
# run.sh N PROGRAM [ARGUMENTS] - runs a program as N MPI processes of this machine.
# In:   number of processes, program.      Out: mpirun's exit code.
# Owns: a folder for what Open MPI leaves behind, removed at the end.
# Why:  the flags are those of the product's launch, and only root must allow root.
set -u
n=$1
shift
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
as_root=
[ "$(id -u)" -eq 0 ] && as_root=--allow-run-as-root
mpirun $as_root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 \
    --mca btl_vader_backing_directory "$dir" --mca osc_sm_backing_directory "$dir" \
    --mca orte_tmpdir_base "$dir" -np "$n" "$@" </dev/null
