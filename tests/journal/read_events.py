"""Prints what TensorBoard itself reads from a folder: "tag step value" per scalar, "tag step text ..." per text."""
import sys

from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

events = EventAccumulator(sys.argv[1], tensor_size_guidance={"scalars": 0, "text": 0})
events.Reload()
for tag in sorted(events.Tags()["tensors"]):
    plugin = events.SummaryMetadata(tag).plugin_data.plugin_name
    for e in events.Tensors(tag):
        value = tensor_util.make_ndarray(e.tensor_proto).reshape(-1)[0]
        if plugin == "scalars":
            print(tag, e.step, f"{value:.6g}")
        else:
            print(tag, e.step, plugin, value.decode().replace("\n", "|"))
