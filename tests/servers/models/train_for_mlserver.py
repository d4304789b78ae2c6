"""Run by .venv-servers: train on digits and save what MLServer loads. `train_for_mlserver.py FILE`."""

import sys

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

pixels, labels = load_digits(return_X_y=True)
joblib.dump(LogisticRegression(max_iter=1_000).fit(pixels[::2] / 16, labels[::2]), sys.argv[1])
