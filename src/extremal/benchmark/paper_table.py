"""The paper's Table 1: accuracy of the pointing game on all and on difficult images, in per cent."""

from extremal.benchmark.table import Table

# (all, difficult) for VOC VGG-16, VOC ResNet-50, COCO VGG-16, COCO ResNet-50
PUBLISHED_ACCURACY: dict[str, tuple[tuple[float, float], ...]] = {
    "centre": ((69.6, 42.4), (69.6, 42.4), (27.8, 19.5), (27.8, 19.5)),
    "gradient": ((76.3, 56.9), (72.3, 56.8), (37.7, 31.4), (35.0, 29.4)),
    "deconvnet": ((67.5, 44.2), (68.6, 44.7), (30.7, 23.0), (30.0, 21.9)),
    "guided-backprop": ((75.9, 53.0), (77.2, 59.4), (39.1, 31.4), (42.1, 35.3)),
    "excitation": ((77.1, 56.6), (84.5, 70.8), (39.8, 32.8), (49.6, 43.9)),
    "contrastive-excitation": ((79.9, 66.5), (90.7, 82.1), (49.7, 44.3), (58.5, 53.6)),
    "rise": ((86.9, 75.1), (86.4, 78.8), (50.8, 45.3), (54.7, 50.0)),
    "grad-cam": ((86.6, 74.0), (90.4, 82.3), (54.2, 49.0), (57.3, 52.3)),
    "penalty": ((88.0, 76.1), (88.9, 78.7), (51.5, 45.9), (56.5, 51.5)),
}
SETUP_COLUMNS = {("voc", "vgg16"): 0, ("voc", "resnet50"): 1, ("coco", "vgg16"): 2, ("coco", "resnet50"): 3}
DATA_SET_AREAS = {"coco": (0.018, 0.025, 0.05, 0.1)}  # of the masks, if they differ from those of VOC


def published_numbers(table: Table, data: str, network: str) -> str:
    """Return a markdown table of our numbers and the paper's; empty if the paper has none for this setup."""
    column = SETUP_COLUMNS.get((data, network.partition(":")[2].removesuffix("-caffe")))
    if column is None:
        return ""
    lines = [
        "| method | ours, all | published, all | ours, difficult | published, difficult |",
        "|---|---:|---:|---:|---:|",
    ]
    for scores in table.methods:
        if scores.method in PUBLISHED_ACCURACY:
            everything, difficult = PUBLISHED_ACCURACY[scores.method][column]
            ours = [f"{100 * estimate.value:.1f}" for estimate in scores.values[:2]]
            lines.append(f"| {scores.method} | {ours[0]} | {everything:.1f} | {ours[1]} | {difficult:.1f} |")
    return "\n".join(lines) + "\n"
