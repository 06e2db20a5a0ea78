#!/bin/sh
# Installs what the native engine links to, in the images that cibuildwheel builds Linux wheels in.
set -eu
if command -v dnf >/dev/null; then # manylinux_2_28: its own OpenSSL is 1.1; 3 comes from EPEL, beside it
    dnf install -y openssl3-devel
    dnf install -y intel-ipsec-mb-devel || echo "libipsec-mb is not to be had here: these wheels seal with OpenSSL alone"
else # musllinux
    apk add openssl-dev
    apk add intel-ipsec-mb-dev || echo "libipsec-mb is not to be had here: these wheels seal with OpenSSL alone"
fi
