"""Writes test/io/fixtures/*.npy and *.npz with NumPy. The committed ones are of Debian's python3-numpy 1.24.2:

    python3 test/io/make_fixtures.py [folder]

Element i of an array is ((7·i mod 23) - 11) / 4 for floats, (7·i mod 23) - 11 for signed integers, 7·i mod 23 for
unsigned ones and (7·i mod 23) is odd for bools: the tests know this rule and nothing else.
"""

import io
import os
import sys

import numpy as np


def values(shape, dtype):
    dtype = np.dtype(dtype)
    steps = 7 * np.arange(int(np.prod(shape, dtype=int))) % 23
    if dtype.kind == "f":
        steps = (steps - 11) / 4
    elif dtype.kind == "i":
        steps = steps - 11
    elif dtype.kind == "b":
        steps = steps % 2 == 1
    return steps.astype(dtype).reshape(shape)


def main(folder):
    os.makedirs(folder, exist_ok=True)

    def save(name, array, **options):
        np.save(os.path.join(folder, name + ".npy"), array, **options)

    for dtype in ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"]:
        save("rows_" + dtype, values((5, 3), dtype))
    save("labels_i8", values((7,), "i8"))
    save("images_f4", values((4, 3, 2, 2), "f4"))
    save("no_rows_f4", values((0, 3), "f4"))
    for dtype in [">f2", ">f4", ">f8", ">i2", ">i8"]:
        save("big_endian_" + dtype[1:], values((5, 3), dtype))
    save("fortran_f4", np.asfortranarray(values((5, 3), "f4")))
    save("fortran_column_f4", np.asfortranarray(values((5, 1), "f4")))
    save("scalar_f8", values((), "f8"))
    save("objects", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    save("complex", values((4,), "f4").astype("c8"))
    save("strings", np.array(["a", "bc"]))
    save("records", np.zeros(3, dtype=[("a", "<f4"), ("b", "<i8")]))
    for version in [(2, 0), (3, 0)]:
        with open(os.path.join(folder, f"version_{version[0]}.npy"), "wb") as file:
            np.lib.format.write_array(file, values((5, 3), "f4"), version=version)

    logits, labels = values((40, 10), "f4"), values((40,), "i8")
    np.savez(os.path.join(folder, "stored.npz"), logits=logits, labels=labels)
    np.savez_compressed(os.path.join(folder, "deflated.npz"), logits=logits, labels=labels)
    np.savez_compressed(os.path.join(folder, "one.npz"), values((5, 3), ">f4"))

    # To a pipe, as to standard output, zip files are written with data descriptors.
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.bytes = bytearray()

        def writable(self):
            return True

        def write(self, data):
            self.bytes += data
            return len(data)

    import zipfile

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("logits.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, logits)
    with open(os.path.join(folder, "descriptor.npz"), "wb") as file:
        file.write(pipe.bytes)


main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "fixtures"))
