"""Routes of the Open Inference Protocol v2: what a question looks like, and what an answer says. Pure."""

from dataclasses import dataclass

import numpy as np

from proxy.simulate.lists import UnreadableError
from proxy.simulate.session import Rows, Scores


@dataclass(frozen=True, slots=True)
class Oip:
    """A model whose only input is so called."""

    name: str
    datatype: str
    features: int
    ending: str = "/infer"

    def question(self, rows: Rows) -> object:
        """Return the body that asks about the rows."""
        tensor = {
            "name": self.name,
            "shape": list(rows.shape),
            "datatype": self.datatype,
            "data": rows.astype(np.float32).ravel().tolist(),
        }
        return {"inputs": [tensor]}

    def scores(self, answer: object, rows: int) -> Scores:
        """Return the first output that has a score for each class. Raise UnreadableError."""
        try:
            for output in answer["outputs"]:  # type: ignore[index]  # what is no such answer ends below
                shape = output["shape"]
                if len(shape) == 2 and shape[0] == rows and shape[1] > 1 and output["datatype"].startswith("FP"):
                    return np.asarray(output["data"], np.float64).reshape(shape)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise UnreadableError("an answer that is not of the Open Inference Protocol") from exc
        raise UnreadableError("no output has a score for each class: name a classifier's route")


def told(metadata: object) -> Oip:
    """Return what a model's metadata says of its input. Raise UnreadableError."""
    try:
        (tensor,) = metadata["inputs"]  # type: ignore[index]  # what is no metadata ends below
        return Oip(str(tensor["name"]), str(tensor["datatype"]), int(tensor["shape"][-1]))
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        raise UnreadableError("its metadata names no single input with a last dimension") from exc
