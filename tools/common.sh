# shellcheck shell=bash
# What the scripts here share; to be sourced. Sets `top`, the repository.
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export top

# Debian's Python: the packages of install_packages.sh are for this one, whatever else is on the PATH.
python=${PYTHON:-/usr/bin/python3}
export python

say() { printf '== %s\n' "$*"; }

# Open MPI refuses root, who in a container is all there is; and its ranks must not spin where they share cores.
prepare_mpi() {
  local ranks=$1
  if [[ $(id -u) -eq 0 ]]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  if ((ranks > $(nproc))); then
    export OMPI_MCA_mpi_yield_when_idle=1
  fi
}

# $1 a configure preset; the rest are further options for cmake. Compiles through ccache where it is there.
configure() {
  local preset=${1:?a configure preset}
  shift
  command -v ccache >/dev/null && export CMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER:-ccache}
  cmake -S "$top" --preset "$preset" "$@"
}
