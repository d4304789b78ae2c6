"""Run by .venv-servers: train on digits and save what MLflow loads. `train_for_mlflow.py DIRECTORY`."""

import sys

import mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

pixels, labels = load_digits(return_X_y=True)
features = pixels[::2] / 16
model = LogisticRegression(max_iter=1_000).fit(features, labels[::2])
mlflow.sklearn.save_model(
    model,
    sys.argv[1],
    signature=infer_signature(features[:2], model.predict_proba(features[:2])),
    pyfunc_predict_fn="predict_proba",
    serialization_format="cloudpickle",  # the default wants one more package
)
