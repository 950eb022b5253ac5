"""keras.optimizers.RMSprop with its defaults, on given gradients. Script of test_rmsprop_keras.py.

Arguments: the .npz to read (weight (…), gradients (S, …), float32), the .npz to write (trace (S, …) float32: the weight
after each step; defaults: (lr, rho, eps, momentum) float64).
"""

import sys

import keras
import numpy as np

inputs_file, outputs_file = sys.argv[1:]
inputs = np.load(inputs_file)
optimizer = keras.optimizers.RMSprop()
weight = keras.Variable(inputs["weight"], dtype="float32")
trace = []
for gradient in inputs["gradients"]:
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
    trace.append(keras.ops.convert_to_numpy(weight))
defaults = optimizer.get_config()
np.savez(
    outputs_file,
    trace=np.stack(trace),
    defaults=[defaults[name] for name in ("learning_rate", "rho", "epsilon", "momentum")],
)
