#!/bin/sh
# Installs the tools that int8_peers.py compares onnxq with: sh install_peers.sh FOLDER [PYTHON]
#
# They want other versions of what onnxq needs, so they get a virtual environment of their own, of
# about 3 GB. nvidia-modelopt brings onnxruntime-gpu, which hides onnxruntime: all run on the CPU.
set -eu
folder=$1
"${2:-python3}" -m venv "$folder"
pip() { "$folder/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install --quiet torch==2.13.0
pip install --quiet 'nvidia-modelopt[onnx]==0.47.0' nncf==3.4.0
pip uninstall --quiet --yes onnxruntime-gpu onnxruntime
pip install --quiet --no-deps onnxruntime==1.32.0
"$folder/bin/python" -c 'import modelopt.onnx.quantization, nncf, onnxruntime.quantization'
