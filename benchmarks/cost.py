"""Measure the cost of one explanation: seconds with start-up, peak memory, evaluations; and print its scores.

Use: python benchmarks/cost.py [IMAGE-NAME ...]      (scikit-image's photographs; chelsea if none)
"""

import resource
import sys
import time

BEGIN = time.perf_counter()

import skimage.data  # noqa: E402

import extremal  # noqa: E402


def main(names: list[str]) -> None:
    """Explain each image at the default areas and print a table."""
    network = extremal.zoo.load("embedded")
    for name in names:
        result = extremal.explain(network, getattr(skimage.data, name)())
        seconds = time.perf_counter() - BEGIN
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name}: {result.target_names[0]}, {seconds:.1f} s since start, peak memory {memory:.0f} MB")
        print(f"  evaluations {result.settings['evaluations']}")
        curve = result.curve()
        for k, area in enumerate(result.areas):
            error = abs(float(result.mask_areas[0, k]) - area)
            print(
                f"  {area:6.1%}  area error {error:.0e}  soft {curve.soft[k]:5.2f}  binary {curve.binary[k]:5.2f}  "
                f"unseen {curve.unseen[k]:5.2f}  random best {curve.control_best[k]:5.2f}  {result.verdict[0][k]}"
            )
        smallest = result.smallest(0.9)
        print(f"  smallest sufficient: {f'{smallest.area:.1%}' if smallest else 'none of these areas'}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["chelsea"])
