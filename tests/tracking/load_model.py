"""Load a logged model where neither our code nor pickle is at hand. Script of test_model.py.

Arguments: the model's folder, images (.npy). Prints what came out as JSON.
"""

import importlib.util
import json
import sys

import numpy as np
from mlflow import pyfunc

folder, images_file = sys.argv[1:]
images = np.load(images_file)
model = pyfunc.load_model(folder)
try:
    model.predict(images.astype(np.float32))
    refusal = ""
except Exception as error:
    refusal = str(error)
print(
    json.dumps(
        {
            "pipeline_at_hand": importlib.util.find_spec("pipeline") is not None,
            "labels": model.metadata.metadata["labels"],
            "batch_1": model.predict(images[:1]).tolist(),
            "batch_7": model.predict(images[:7]).tolist(),
            "refusal": refusal,
        }
    )
)
