"""The book's model in Keras, from Keras' own initial weights, on given batches. Script of test_book_steps.py.

Arguments: the .npz to read (images (S, B, 28, 28) uint8, labels (S, B), one batch a step; S may be 0), the .npz to
write (losses (S,); start0…3 and end0…3: the weights before and after).
"""

import sys

import keras
import numpy as np
from keras import layers

inputs_file, outputs_file = sys.argv[1:]
inputs = np.load(inputs_file)

keras.utils.set_random_seed(0)
model = keras.Sequential([layers.Dense(512, activation="relu"), layers.Dense(10, activation="softmax")])
model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.build((None, 28 * 28))
start = model.get_weights()
losses = []
for images, labels in zip(inputs["images"], inputs["labels"], strict=True):
    model.reset_metrics()  # else what comes back is the mean over all batches so far
    samples = images.reshape(-1, 28 * 28).astype("float32") / 255
    losses.append(model.train_on_batch(samples, labels, return_dict=True)["loss"])
np.savez(
    outputs_file,
    losses=losses,
    **{f"start{number}": weight for number, weight in enumerate(start)},
    **{f"end{number}": weight for number, weight in enumerate(model.get_weights())},
)
