#!/usr/bin/env bash
# Make a root file system that looks like python:3.13-slim-trixie, from Debian's own packages.
# usage: base.sh TARBALL     (root; needs mmdebstrap)
set -euo pipefail

# A proxy that signs TLS anew has its certificate authority here; pip in the build needs it.
authorities=/usr/local/share/ca-certificates

# shellcheck disable=SC2016  # $1 is for the hook's own shell
mmdebstrap --quiet --mode=root --variant=minbase \
  --include=ca-certificates,python3,python3-pip,python3-venv \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook="cp $authorities/*.crt \"\$1$authorities/\" 2>/dev/null || true" \
  --customize-hook='chroot "$1" update-ca-certificates >/dev/null 2>&1' \
  --customize-hook='rm "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
  --customize-hook='for name in python python3; do ln -s /usr/bin/python3 "$1/usr/local/bin/$name"; done' \
  --customize-hook='ln -s /usr/bin/pip3 "$1/usr/local/bin/pip"' \
  trixie "$1"
