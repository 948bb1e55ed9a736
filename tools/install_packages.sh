#!/usr/bin/env bash
# Installs what building, testing and reporting need, from the packages of Debian 12 or Ubuntu 24.04; only what is
# missing, and nothing at all when nothing is. Needs root or sudo when something is.
#
#   tools/install_packages.sh [--dry-run]
set -euo pipefail

packages=(
  cmake ninja-build make g++ git pkg-config clang-format # build
  libopenmpi-dev openmpi-bin libhdf5-dev hdf5-tools      # libraries of the program
  libopenblas-dev libcli11-dev libtomlplusplus-dev nlohmann-json3-dev libfmt-dev
  libboost-test-dev libpcre2-dev iproute2 python3-pip    # tests
  python3-h5py python3-matplotlib python3-pandas python3-tables  # report
)

fail() {
  echo "install_packages.sh: $1" >&2
  exit 1
}

supported_distribution() {
  # shellcheck source=/dev/null
  [[ -r /etc/os-release ]] && . /etc/os-release
  case "${ID:-unknown} ${VERSION_ID:-}" in
    "debian 12" | "ubuntu 24.04") ;;
    *) fail "${PRETTY_NAME:-this system} is not known (Debian 12 and Ubuntu 24.04 are); install by hand what stands for: ${packages[*]}" ;;
  esac
}

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

# Sets `as_root`, the words before a command that needs root's rights.
find_root() {
  as_root=()
  [[ $(id -u) -eq 0 ]] && return
  command -v sudo >/dev/null || fail "packages are missing and this is neither root nor has sudo; ask for: ${missing[*]}"
  sudo -v || fail "packages are missing and sudo was refused; ask for: ${missing[*]}"
  as_root=(sudo)
}

# $1 says what was tried; the rest is the command. Its output is shown only when it fails.
quietly() {
  local what=$1 log status=0
  shift
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  if ((status != 0)); then
    tail -n 15 "$log" >&2
    rm -f "$log"
    fail "$what failed with status $status (the lines above are its last); mend the package sources or the network and run this again"
  fi
  rm -f "$log"
}

supported_distribution
mapfile -t missing < <(missing_packages)
if [[ ${1:-} == --dry-run ]]; then
  echo "missing: ${missing[*]:-nothing}"
elif ((${#missing[@]} > 0)); then
  echo "installing ${missing[*]}"
  find_root
  quietly "apt-get update" "${as_root[@]}" apt-get update
  quietly "apt-get install" "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
fi
