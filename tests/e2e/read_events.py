"""read_events.py FOLDER: what TensorBoard's own readers make of the event files in a folder, as one JSON object. Run by support.read_events, by a
Python that has the package tensorboard.

    accumulator  of event_accumulator, which scripts use: {"scalars": {tag: [[step, wall time, value]]}, "texts": {tag: [[step, wall time, text]]}}
    server       the same of plugin_event_accumulator, from which the program tensorboard serves its pages
    canonical    whether each event, read and written again, has the same bytes
"""

import json
import logging
import pathlib
import sys

from tensorboard.backend.event_processing import event_accumulator, event_file_loader, plugin_event_accumulator
from tensorboard.compat.proto import event_pb2
from tensorboard.util import tensor_util

EVERYTHING = {"scalars": 0, "tensors": 0}  # 0: no sampling


def text_of(tensor):
    array = tensor_util.make_ndarray(tensor)
    assert array.shape == (), f"a text of shape {array.shape} is shown as a table"
    return array.item().decode()


def by_accumulator(folder):
    reader = event_accumulator.EventAccumulator(folder, size_guidance=EVERYTHING).Reload()
    tags = reader.Tags()
    return {
        "scalars": {tag: [[e.step, e.wall_time, e.value] for e in reader.Scalars(tag)] for tag in tags["scalars"]},
        "texts": {tag: [[e.step, e.wall_time, text_of(e.tensor_proto)] for e in reader.Tensors(tag)] for tag in tags["tensors"]},
    }


def by_server(folder):
    reader = plugin_event_accumulator.EventAccumulator(folder, tensor_size_guidance={"scalars": 0, "text": 0}).Reload()
    found = {"scalars": {}, "texts": {}}
    for tag in reader.Tags()["tensors"]:
        plugin = reader.SummaryMetadata(tag).plugin_data.plugin_name
        if plugin == "text":
            found["texts"][tag] = [[e.step, e.wall_time, text_of(e.tensor_proto)] for e in reader.Tensors(tag)]
        else:
            assert plugin == "scalars", plugin
            found["scalars"][tag] = [[e.step, e.wall_time, tensor_util.make_ndarray(e.tensor_proto).item()] for e in reader.Tensors(tag)]
    return found


def is_canonical(folder):
    records = [record for file in sorted(pathlib.Path(folder).glob("*tfevents*")) for record in event_file_loader.RawEventFileLoader(str(file)).Load()]
    return all(event_pb2.Event.FromString(record).SerializeToString() == record for record in records)


if __name__ == "__main__":
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # that points were dropped
    folder = sys.argv[1]
    print(json.dumps({"accumulator": by_accumulator(folder), "server": by_server(folder), "canonical": is_canonical(folder)}))
