#!/bin/bash
# How jobs end: usage failure_test.sh MPIEXEC FAILING_JOB MISBEHAVING_TESTS MISBEHAVING_SERIAL_TESTS. Runs small jobs
# that fail in every way and checks the status that mpirun returns, what is printed and that nothing lingers.
set -u
mpiexec=$1 failing_job=$2 misbehaving_tests=$3 misbehaving_serial_tests=$4
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset LLAMA3D_TEST_RANKS OMPI_COMM_WORLD_SIZE "${!SLURM_@}" "${!PMI_@}" "${!PMIX_@}"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
problems=0

complain() {
  problems=$((problems + 1))
  echo "PROBLEM in '$what': $1; output:"
  sed 's/^/    /' "$output"
}

# job RANKS PROGRAM ARGUMENT...: runs it; leaves $status, $seconds and $output. $quiet is --quiet or empty: mpirun's
# own words about a job that ends badly.
quiet=--quiet
job() {
  local ranks=$1 begin=$SECONDS
  what="${*:2}"
  timeout -k 5 60 "$mpiexec" $quiet --oversubscribe --bind-to none -np "$ranks" "${@:2}" >"$output" 2>&1
  status=$?
  seconds=$((SECONDS - begin))
  [ "$seconds" -le 20 ] || complain "took $seconds s"
}
returns() { [ "$status" -eq "$1" ] || complain "status $status, not $1"; }
fails() { [ "$status" -ne 0 ] && [ "$status" -ne 124 ] || complain "status $status, not a failure"; }
# says TIMES PATTERN: the number of output lines that match.
says() {
  local times
  times=$(grep -c -- "$2" "$output")
  [ "$times" -eq "$1" ] || complain "'$2' is printed $times times, not $1"
}
says_somewhere() { grep -q -- "$1" "$output" || complain "'$1' is not printed"; }

job 4 "$failing_job" ok
returns 0
says 1 '^done ok$'

# An error on one rank ends all with its status and names the rank.
job 4 "$failing_job" throw
returns 3
says 1 '^llama3d: rank 1 (host .*): error: shard 7 is damaged (test); copy it again$'
job 4 "$failing_job" contract
returns 1
says 1 '^llama3d: rank 1 (host .*): error: a broken promise'

# A rank that dies of a signal ends all; mpirun names it.
quiet=
job 4 "$failing_job" sigkill
returns 137
says 1 'rank 1 .*signal 9'
says 0 '^llama3d: error'
quiet=--quiet
job 4 "$failing_job" sigsegv
fails

# An error of all ranks is printed once.
job 4 "$failing_job" collective
returns 2
says 1 'llama3d'
says 1 '^llama3d: error: --tp-size 3 (test); choose 2$'
job 4 "$failing_job" one_of_all
returns 3
says 1 'llama3d'
says 1 '^llama3d: error: no such file (test); look again \[rank 1 on host .*\]$'
job 1 "$failing_job" collective
returns 2
says 1 '^llama3d: error: --tp-size 3 (test); choose 2$'

# A rank that does not come ends all, within ten seconds of the watchdog's limit of one, whatever is stuck, and once
# the hang has been told nothing else is.
for hang in hang stuck_communicator stuck_everywhere stuck_throw; do
  job 4 "$failing_job" $hang
  returns 5
  # Starting and ending the job comes on top, and takes seconds on a busy machine.
  [ "$seconds" -le 16 ] || complain "took $seconds s"
  says 1 'llama3d'
  says 1 '^llama3d: error: no progress for 1 s (`comm_timeout`): rank [023] (host .*) waits in world.totals, step 10$'
  says 3 '^  rank [023] (host .*): waits in world.totals since [12]\.[0-9] s, step 10$'
  says 1 '^  rank 1 (host .*): in no communication (computing, or busy with files), step 10$'
done
job 4 "$failing_job" communicator
returns 5
says 1 'llama3d'
says 1 '^llama3d: error: rank 1 (host .*): unhandled system error: connection reset, step [0-9]*$'
# So does one that cannot carry out an operation, instead of leaving with its error alone.
for lost in lost_start lost_wait lost_agreement; do
  job 4 "$failing_job" $lost
  returns 5
  says 1 'llama3d'
  words='world.totals: all-reduce failed (test): connection closed'
  [ $lost = lost_agreement ] && words='control.all_max: no answer (test)'
  says 1 "^llama3d: error: rank 1 (host .*): $words, step 10\$"
  says 3 '^  rank [023] (host .*): waits in world.totals since 0.[0-9] s, step 10$'
  says 1 "^  rank 1 (host .*): waits in .*, step 10; $words\$"
done
# Without a watchdog it does.
job 4 "$failing_job" lost_unwatched
returns 5
says 1 'llama3d'
says 1 '^llama3d: rank 1 (host .*): error: no answer (test)$'

# A launcher whose tasks do not see each other.
what="a task of two that is alone"
SLURM_NTASKS=2 timeout 60 "$failing_job" ok >"$output" 2>&1
status=$?
returns 2
says 1 'srun --mpi=pmix'
what="a task of an srun without PMI"
SLURM_STEPID=0 SLURM_PROCID=0 SLURM_NTASKS=2 timeout 60 "$failing_job" ok >"$output" 2>&1
status=$?
returns 2
says 1 ''
says 1 'srun --mpi=pmix'
what="the second task of an srun without PMI"
SLURM_STEPID=0 SLURM_PROCID=1 SLURM_NTASKS=2 timeout 60 "$failing_job" ok >"$output" 2>&1
status=$?
returns 2
says 0 ''
what="a task of one"
SLURM_NTASKS=1 timeout 60 "$failing_job" ok >"$output" 2>&1
status=$?
returns 0

# The parallel test main does not let a bad test pass.
export LLAMA3D_TEST_RANKS=3 LLAMA3D_TEST_TIMEOUT=2
job 3 "$misbehaving_tests" --run_test=passes
returns 0
says 0 'rank 1'
says 0 'skipped'
job 3 "$misbehaving_tests" --run_test=fails_on_the_last_rank
fails
says_somewhere '^\[rank 2\] .*error.*fails_on_the_last_rank'
says 0 '^\[rank 1\]'
job 3 "$misbehaving_tests" --run_test=throws_on_rank_1
fails
says_somewhere '^\[rank 1\] .*alone'
job 3 "$misbehaving_tests" --run_test=checks_nothing
fails
says_somewhere 'checked nothing'
job 3 "$misbehaving_tests" --run_test=is_skipped
returns 77
says 1 'skipped is_skipped: .*it needs a thing'
job 3 "$misbehaving_tests" --run_test=passes,is_skipped
returns 0
says 1 'skipped is_skipped'
job 3 "$misbehaving_tests" --run_test=hangs_on_rank_1
fails
says_somewhere '^\[rank 1 on .*hangs_on_rank_1 has not ended after 2 s'
says 0 '^\[rank [02] .*has not ended'
job 3 "$misbehaving_tests" --run_test=leaves_the_others_in_a_collective
fails
says_somewhere '^\[rank 1\] .*leaves_the_others_in_a_collective'
job 3 "$misbehaving_tests" --run_test=no_such_test
fails
job 2 "$misbehaving_tests" --run_test=passes
fails
says 1 'LLAMA3D_TEST_RANKS is 3 but this test runs on 2 ranks'
unset LLAMA3D_TEST_RANKS
job 2 "$misbehaving_tests" --run_test=passes
fails
says 1 'LLAMA3D_TEST_RANKS is not set'

# Nor does that of one process.
serial() {
  what="one process, $1"
  "$misbehaving_serial_tests" --run_test="$1" >"$output" 2>&1
  status=$?
}
serial passes
returns 0
serial checks_nothing
returns 1
says 1 '^test checks_nothing checked nothing$'
serial is_skipped
returns 77
says 1 '^skipped is_skipped: .*it needs a thing$'
serial passes,is_skipped
returns 0
says 1 '^skipped is_skipped'
serial no_such_test
fails

[ "$problems" -eq 0 ] && echo "all jobs ended as they should"
exit "$((problems > 0))"
