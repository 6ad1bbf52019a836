#!/bin/sh
# What the Dockerfile's RUN and CMD lines do, so that a test can do the same without an image.
#
#   image-steps.sh build SOURCE WHEELS   make the project's wheel
#   image-steps.sh install WHEELS VENV   a virtual environment with that wheel, the CPU worker, and what object storage needs
#   image-steps.sh serve VENV [FLAG ...] run the gateway
set -eu
step=$1
shift
case $step in
  build)
    "${PYTHON:-python3}" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$2" "$1"
    ;;
  install)
    "${PYTHON:-python3}" -m venv "$2"
    for wheel in "$1"/comfygate-*.whl; do
      "$2/bin/pip" install --quiet --disable-pip-version-check "$wheel[embedded,s3]"
    done
    ;;
  serve)
    venv=$1
    shift
    exec "$venv/bin/comfygate" serve "$@"
    ;;
  *)
    echo "image-steps.sh: no step '$step'" >&2
    exit 2
    ;;
esac
