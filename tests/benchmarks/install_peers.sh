#!/bin/sh
# Installs what int8_peers.py compares: sh install_peers.sh FOLDER [PYTHON]
#
# The peers want other versions of what onnxq needs, so they get a virtual environment of their own,
# of about 3 GB, and onnxq gets one with nothing but what it needs, in FOLDER/onnxq. nvidia-modelopt
# brings onnxruntime-gpu, which hides onnxruntime: all run on the CPU.
set -eu
folder=$1
python=${2:-python3}
"$python" -m venv "$folder"
"$python" -m venv "$folder/onnxq"
pip() { "$folder/bin/python" -m pip --disable-pip-version-check "$@"; }
"$folder/onnxq/bin/python" -m pip install --quiet "$(dirname "$0")/../..[cpu]"
pip install --quiet torch==2.13.0
pip install --quiet 'nvidia-modelopt[onnx]==0.47.0' nncf==3.4.0
pip uninstall --quiet --yes onnxruntime-gpu onnxruntime
pip install --quiet --no-deps onnxruntime==1.32.0
"$folder/bin/python" -c 'import modelopt.onnx.quantization, nncf, onnxruntime.quantization'
