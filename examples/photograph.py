"""Write one of scikit-image's photographs to a file.

Usage: python examples/photograph.py NAME PATH      (camera, chelsea, coffee, rocket, astronaut)
"""

import sys

import skimage.data
from PIL import Image


def main(name: str, path: str) -> None:
    """Save the photograph in the format of the file's suffix."""
    Image.fromarray(getattr(skimage.data, name)()).save(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
