"""The book's program in Keras, with its own initial weights and shuffling. Script of book_seeds.py.

Arguments: the folder of arrays that preprocess made, the seed, the number of epochs, the .json to write (right: of
`count` test images; fit_s: wall seconds of model.fit, tracing and compilation included; epochs_s: of each epoch;
versions).
"""

import json
import sys
import time
from pathlib import Path

import jax
import keras
import numpy as np
from keras import layers

processed, seed, num_epochs, result = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
BATCH = 128


class Clock(keras.callbacks.Callback):
    """Wall seconds of each epoch."""

    def __init__(self):
        super().__init__()
        self.epochs_s = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start_s = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.epochs_s.append(time.perf_counter() - self.start_s)


def load(split):
    images = np.load(processed / split / "images.npy").reshape(-1, 28 * 28).astype("float32") / 255
    return images, np.load(processed / split / "labels.npy")


keras.utils.set_random_seed(seed)
(train_images, train_labels), (test_images, test_labels) = load("train"), load("test")
model = keras.Sequential([layers.Dense(512, activation="relu"), layers.Dense(10, activation="softmax")])
model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
clock = Clock()
start_s = time.perf_counter()
model.fit(train_images, train_labels, epochs=num_epochs, batch_size=BATCH, verbose=0, callbacks=[clock])
fit_s = time.perf_counter() - start_s
right = int((model.predict(test_images, batch_size=2000, verbose=0).argmax(1) == test_labels).sum())
versions = f"Keras {keras.__version__}, JAX {jax.__version__} ({jax.default_backend()})"
found = {"right": right, "count": len(test_labels), "fit_s": fit_s, "epochs_s": clock.epochs_s, "versions": versions}
result.write_text(json.dumps(found))
