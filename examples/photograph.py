"""Write one of scikit-image's photographs to a file.

Use: python examples/photograph.py NAME PATH      (chelsea, coffee, rocket, astronaut)
"""

import sys

import skimage.data
from PIL import Image


def main(name: str, path: str) -> None:
    """Save the photograph as the file's ending says."""
    Image.fromarray(getattr(skimage.data, name)()).save(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
